"""The schema of one experiment. Every key of a config file is a field here, with its type, range and default.

Lengths of histories, contexts and evaluations are in *episodes* of the task's full length, so that a change of
`tasks.episode_length` keeps everything in proportion. All sections but `runtime` decide results; `runtime` decides
how fast, where, and what is logged, and changes no result beyond rounding, so changing it makes no finished work stale.
(A deep source's life is chaotic, so that on another kind of device its histories are others, of the same distribution.)
"""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from icrl.config.sections import AgentComponent, ObjectiveComponent, Section, Source, TasksComponent, problem
from icrl.support.errors import ConfigError
from icrl.support.hub import NAME

TaskShare = Annotated[int, Field(ge=1, strict=True)] | Annotated[float, Field(gt=0, lt=1)]


class SplitConfig(Section):
    """Which tasks are for training and which are held out."""

    train: TaskShare = 0.8
    """A number of tasks, or a share of all tasks where their number is finite."""

    test: TaskShare = 0.2
    """Held-out tasks: a number, or a share. No training data ever comes from them."""


_MADE = ("histories_per_task", "episodes", "shards", "optimal_actions")
"""What data that is given has already."""


class DataConfig(Section):
    """The learning histories: made by `sources`, or given as a `repo` of the hub or a `folder`."""

    sources: tuple[Source, ...] = ()
    """The agents whose lifetimes are recorded."""

    repo: Annotated[str, Field(pattern=f"^{NAME}$")] | None = None
    """A data set on the hub, USER/NAME or USER/NAME@REVISION, with a branch, tag or commit; then nothing is made."""

    folder: str | None = None
    """A data folder on disk: another run's data/, or what an import has written; then nothing is made."""

    streaming: bool = False
    """Of a `repo`: fetch one shard after another during training, instead of all before it."""

    resident_shards: PositiveInt = 4
    """Shards in memory at once with `streaming`; windows are drawn from all of them."""

    histories_per_task: PositiveInt = 32
    """Independent learners a training task. Each leaves a history, or one for each of its actors where its source says
    `record: all`."""

    episodes: PositiveInt = 160
    """The length of a history, in full-length episodes."""

    shards: PositiveInt = 4
    """HDF5 files that the histories are written to; a worker holds one of them in memory."""

    optimal_actions: bool = False
    """Record beside every action what the optimal policy would do there, for DPT and expert distillation."""

    @property
    def given(self) -> str | None:
        """Where the data is from, if it is not made here."""
        return self.repo or self.folder

    @model_validator(mode="after")
    def _one_origin(self) -> "DataConfig":
        named = [name for name in ("sources", "repo", "folder") if getattr(self, name)]
        if len(named) != 1:
            found = f"{named[0]} and {named[1]}" if named else "none of them"
            raise problem(f"data.{named[1] if named else 'sources'}", found, "give one of sources, repo and folder")
        if self.streaming and not self.repo:
            raise problem("data.streaming", True, "is for a data.repo")
        decided = [name for name in _MADE if getattr(self, name) != type(self).model_fields[name].default]
        if self.resident_shards != type(self).model_fields["resident_shards"].default and not self.streaming:
            raise problem("data.resident_shards", self.resident_shards, "is for data.streaming")
        if self.given and decided:
            value = getattr(self, decided[0])
            raise problem(f"data.{decided[0]}", value, f"is decided by {self.given}; leave it out")
        return self


class ModelConfig(Section):
    """The transformer."""

    backbone: str = "llama"
    """Any decoder of transformers: llama, gpt2, gpt_neox, qwen3 ..."""

    hidden_size: PositiveInt = 64
    """Width of the residual stream."""

    num_layers: PositiveInt = 2
    """Transformer blocks."""

    num_heads: PositiveInt = 2
    """Attention heads; divides hidden_size."""

    intermediate_size: PositiveInt = 160
    """Width of the feed-forward layer."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Residual dropout, where the backbone has one."""

    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout of attention weights. Costs a small model several times its speed on a CPU."""

    context_episodes: PositiveInt = 5
    """Context length, in full-length episodes; improvement has to show inside it."""

    action_bins: Annotated[int, Field(ge=2)] = 32
    """Bins that the range of each number of a Box action is cut into."""

    backbone_options: dict[str, Any] = {}
    """More keys of the backbone's own transformers config; an unknown key is an error."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "ModelConfig":
        if self.hidden_size % self.num_heads:
            raise problem(
                "model.num_heads", self.num_heads, f"must divide model.hidden_size, which is {self.hidden_size}"
            )
        return self


class SelectionConfig(Section):
    """Which histories training reads, and how likely each is; the data itself stays as it is.

    The limits and weights are about three scores of a history, defined in `data_gen.scoring.scores` and shown by `icrl
    info`. They are on the normalised scale (0 random, 1 optimal) where the task distribution knows its optimum, and raw
    returns where it does not. A history is read if it meets every limit. By default all are read, each as likely.
    """

    min_improvement: float | None = None
    """Least gain in return from the first to the last tenth of a history's episodes."""

    min_final_return: float | None = None
    """Least mean return of the last tenth of a history's episodes."""

    max_drop: Annotated[float, Field(ge=0)] | None = None
    """Stability: how far the return, smoothed over a tenth of the episodes, may ever fall below its best until then."""

    best_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of each task's histories, the share with the best final return, rounded up. Needs no scale that tasks share."""

    likelihood: Literal["uniform", "improvement", "final_return", "stability"] = "uniform"
    """The score that a history's likelihood is proportional to, counted from the worst history that is left. For
    `stability`, the score is how far the largest drop lies below the worst one. The worst history is then not read."""


class TrainingConfig(Section):
    """Training of the transformer."""

    objective: ObjectiveComponent = ObjectiveComponent(name="imitation")
    """What the transformer learns from its contexts: `imitation` of the sources' actions (Algorithm Distillation),
    `optimal_action`, recorded beside them with `data.optimal_actions` (DPT), or `module:Class` of your own."""

    selection: SelectionConfig = SelectionConfig()

    steps: PositiveInt = 600
    """Optimiser updates."""

    batch_size: PositiveInt = 64
    """Context windows an update, over all processes and accumulation steps."""

    accumulation_steps: PositiveInt = 1
    """Parts that each process cuts its share of the batch into, to fit memory."""

    subsample: PositiveInt = 16
    """Keep every k-th episode of a history, so that a context spans learning (Laskin et al. 2022)."""

    learning_rate: PositiveFloat = 3e-3
    """Peak learning rate of AdamW."""

    final_learning_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Learning rate at the end of the cosine, as a share of the peak."""

    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Updates of linear warm-up."""

    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.99)
    """Decay rates of AdamW's moments."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's weight decay."""

    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this norm."""

    @property
    def imitates(self) -> bool:
        """True if the sources' own actions are what is learned, so that the data has to improve."""
        return "action" in self.objective.build().columns

    @model_validator(mode="after")
    def _fits(self) -> "TrainingConfig":
        if self.batch_size % self.accumulation_steps:
            raise problem(
                "training.accumulation_steps",
                self.accumulation_steps,
                f"must divide training.batch_size, which is {self.batch_size}",
            )
        return self


class EvaluationConfig(Section):
    """The frozen transformer and its baselines on train and test tasks."""

    episodes: PositiveInt = 50
    """Episodes a lifetime."""

    train_tasks: Annotated[int, Field(ge=0)] = 16
    """How many training tasks to evaluate on; fewer are used where there are fewer."""

    test_tasks: PositiveInt = 16
    """How many held-out tasks to evaluate on; fewer are used where there are fewer."""

    seeds: PositiveInt = 8
    """Lifetimes a task."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Of the transformer's action distribution; 0 takes the most likely action, which stops it exploring."""

    baselines: tuple[AgentComponent, ...] = (AgentComponent(name="random"), AgentComponent(name="optimal"))
    """Agents to compare with. The sources are always among them."""

    figures: tuple[str, ...] = ()
    """Figures of your own beside the usual ones, each as `module:function` (`eval.figures`)."""

    checkpoint: str | None = None
    """A model folder, a checkpoint, or a repository of the hub, to evaluate instead of the run's last checkpoint."""

    trust_remote_code: bool = False
    """Run the code that lies beside the weights of `checkpoint`, instead of this project's own. Look at it first."""


class RuntimeConfig(Section):
    """How fast, where, and what is logged. Nothing here changes a result beyond rounding."""

    workers: PositiveInt = 2
    """Processes that generate data."""

    executor: Literal["processes", "dask"] = "processes"
    """Where shards are made: local processes, or a Dask cluster."""

    scheduler: str | None = None
    """Address of the Dask scheduler, such as tcp://host:8786."""

    device: str | None = None
    """Device for evaluation and for the sources' networks. Unset, evaluation takes the first accelerator if there is
    one, and sources the CPU. Training takes accelerate's."""

    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    """Precision of training; unset takes what `accelerate launch` was told."""

    compile: bool = False
    """Compile the model with torch.compile for training."""

    trackers: tuple[str, ...] = ("tensorboard",)
    """Experiment trackers: tensorboard, wandb, trackio; any number of them."""

    log_every: PositiveInt = 20
    """Updates between two log lines."""

    checkpoint_every: PositiveInt = 200
    """Updates between two checkpoints; the last update always leaves one."""

    meta_checkpoint_every: PositiveInt = 20
    """Iterations of meta-training between two checkpoints; the last iteration always leaves one."""

    keep_checkpoints: PositiveInt = 2
    """Checkpoints to keep; older ones are deleted once a newer one is complete."""

    @model_validator(mode="after")
    def _dask_has_a_scheduler(self) -> "RuntimeConfig":
        if self.executor == "dask" and self.scheduler is None:
            raise problem("runtime.scheduler", None, "the dask executor needs its address: --scheduler tcp://HOST:PORT")
        return self


class ExperimentConfig(Section):
    """One experiment: tasks, the data that source agents leave on them, a transformer, and its evaluation."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the run folder; the config file's name unless given."""

    output: str = "runs"
    """Folder that holds the run folder."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Everything random follows from it: split, data, initial weights, windows, evaluation."""

    tasks: TasksComponent
    """The task distribution."""

    split: SplitConfig = SplitConfig()
    data: DataConfig
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _labels_are_recorded(self) -> "ExperimentConfig":
        objective = self.training.objective
        try:
            columns = objective.build().columns
        except (ConfigError, pydantic.ValidationError):  # reported with the component's own parameters
            return self
        if "optimal_action" in columns and not (self.data.optimal_actions or self.data.given):
            raise problem(
                "training.objective", objective.name, "needs data.optimal_actions: true, which records its labels"
            )
        return self

    @model_validator(mode="after")
    def _selection_reads_everything(self) -> "ExperimentConfig":
        if self.data.streaming and self.training.selection != SelectionConfig():
            raise problem("training.selection", "set", "reads all histories first: leave it out, or data.streaming")
        return self

    @model_validator(mode="after")
    def _context_fits_history(self) -> "ExperimentConfig":
        kept = self.data.episodes // self.training.subsample
        if self.data.given is None and self.model.context_episodes > kept:
            raise problem(
                "model.context_episodes",
                self.model.context_episodes,
                f"is longer than a history: data.episodes {self.data.episodes} // training.subsample "
                f"{self.training.subsample} leaves {kept} episodes",
            )
        return self
