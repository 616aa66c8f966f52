"""The public API, for type checkers and editors; `__init__.py` imports each name on first use."""

from ad_model.in_context import TransformerAgent as TransformerAgent
from ad_model.load import load_model as load_model
from ad_model.objectives.base import Objective as Objective
from ad_model.train import train as train
from data_gen.agents.base import Agent as Agent
from data_gen.agents.base import Spec as Spec
from data_gen.agents.base import Transition as Transition
from data_gen.exchange.minari_data import import_minari as import_minari
from data_gen.exchange.minari_export import export_minari as export_minari
from data_gen.exchange.record_history import RecordHistory as RecordHistory
from data_gen.exchange.record_history import RecordVectorHistory as RecordVectorHistory
from data_gen.exchange.recording import Recording as Recording
from data_gen.exchange.recording import save_histories as save_histories
from data_gen.exchange.xland import import_xland as import_xland
from data_gen.experiment import Experiment as Experiment
from data_gen.experiment import open_run as open_run
from data_gen.generation.generate import generate as generate
from data_gen.interaction import interact as interact
from data_gen.meta.base import MetaLearner as MetaLearner
from data_gen.meta.training import meta_train as meta_train
from data_gen.returns import episode_returns as episode_returns
from data_gen.storage.writing import Recorded as Recorded
from data_gen.storage.writing import write_histories as write_histories
from data_gen.streams import SlotStreams as SlotStreams
from data_gen.streams import make_seeds as make_seeds
from data_gen.tasks.base import TaskDistribution as TaskDistribution
from data_gen.tasks.base import Tasks as Tasks
from data_gen.tasks.vector import TaskVectorEnv as TaskVectorEnv
from eval.evaluate import evaluate as evaluate
from eval.report import write_report as write_report
from eval.summary import load_summary as load_summary
from icrl.cli import run_experiment as run_experiment
from icrl.config.components import component as component
from icrl.config.loader import load_config as load_config
from icrl.config.loader import make_agent as make_agent
from icrl.config.loader import make_objective as make_objective
from icrl.config.loader import make_tasks as make_tasks
from icrl.support.errors import ConfigError as ConfigError
from icrl.support.errors import UserError as UserError

__version__: str
