"""A trained model as a repository of the hub: its files, and a card with usage, evaluation and limits."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import ad_model
from ad_model.model_files import CONFIG, INDEX, check_own_code, checked_config, weight_files
from ad_model.objectives.base import Objective
from ad_model.tokens import first_token_code, token_text
from data_gen.experiment import Experiment
from data_gen.spaces import to_json
from data_gen.storage.folder import load_info
from data_gen.storage.info import DataInfo
from eval.evaluate import evaluated_weights, model_path
from eval.report import report_exists
from eval.summary import TRANSFORMER, Estimate, Summary, intact_summary
from eval.summary_text import NO_HELD_OUT, value_text
from icrl.config.describe import first_line
from icrl.config.schema import ExperimentConfig
from icrl.run.checkpoints import TrainingRecord, checkpoint_record
from icrl.run.folder import CARD, CHECKSUMS, SUMMARY, TASK_FILES
from icrl.support.errors import UserError
from icrl.support.hub import Repository
from icrl.support.markdown import code, plain
from icrl.support.terminal import say
from icrl.support.yaml12 import write_yaml
from publish.data import public_config
from publish.push import Parcel

_WEIGHTS = ("*.safetensors", "*.json")
_CURVES = "curves.png"


def model_parcel(experiment: Experiment, repo: Repository, licence: str | None = None) -> Parcel:
    """The files to send for a trained model: weights, only as safetensors, code, card and report.

    Raises UserError if training is not finished, or the evaluation belongs to other weights.
    """
    config, folder = experiment.config, experiment.folder
    path = model_path(config, folder)
    checked_config(path)
    check_own_code(path)
    described = [path / name for name in (CONFIG, CHECKSUMS, INDEX) if (path / name).exists()]
    files: dict[str, Path | bytes] = {file.name: file for file in (*described, *weight_files(path))}
    files |= {file.name: file for file in sorted(Path(str(ad_model.__file__)).parent.glob("*_ad.py"))}
    summary = intact_summary(folder) if folder.summary.exists() else None
    if summary is not None and summary.weights != evaluated_weights(config, folder, path):
        raise UserError(f"{folder.eval}: belongs to other weights than {path}: run `icrl evaluate --overwrite`")
    picture = folder.report_pictures / _CURVES
    if summary is not None:
        files[SUMMARY] = folder.summary
        if report_exists(folder):
            files |= {"report.html": folder.report, _CURVES: picture}
        else:  # or of an earlier evaluation
            say(f"note: {folder.report} is missing or damaged, and not pushed; `icrl evaluate` makes it again")
    info = load_info(folder) if folder.data_info.exists() else None
    files["experiment.yaml"] = public_config(folder.config)
    record = checkpoint_record(path.parent, TrainingRecord) if config.evaluation.given is None else None
    if info is not None and experiment.given_split is not None:
        files[TASK_FILES[-1]] = folder.data / TASK_FILES[-1]
    card = model_card(config, repo, summary, info, record, licence, _CURVES in files, TASK_FILES[-1] in files)
    replaced = (*_WEIGHTS, TASK_FILES[-1], "*_ad.py", "*.bin", "*.pt")
    return Parcel({**files, CARD: card.encode()}, replaced, f"Model: {config.name}")


def model_card(
    config: ExperimentConfig,
    repo: Repository,
    summary: Summary | None,
    info: DataInfo | None,
    record: TrainingRecord | None,
    licence: str | None,
    picture: bool,
    held_out: bool = False,
) -> str:
    """The text of a model's README.md.

    Args:
        config: config of the experiment.
        repo: repository that the model goes to.
        summary: summary of the model's evaluation, if it has been evaluated.
        info: record of the training data, if the data is available.
        record: record of the model's checkpoint, if the checkpoint is the run's own.
        licence: the hub's identifier of the model's licence.
        picture: True if the picture of the learning curves lies beside the card.
        held_out: True if the file of the held-out tasks lies beside the card, since only the data knows its split.
    """
    parameters = {key: value for key, value in config.tasks.model_dump(mode="json").items() if key != "name"}
    tasks = f", **json.loads({json.dumps(parameters)!r})" if parameters else ""
    return f"""---
{_header(config, summary, info, licence)}---

# {config.name}

A causal transformer that learns *in its context* (Algorithm Distillation, Laskin et al. 2022, and what followed it). It
was trained on learning histories of {code(config.tasks.name)}, with the objective
{code(config.training.objective.name)}: {first_line(type(config.training.objective.build()))} On a task
that it has never seen, it gets better from one episode to the next, with frozen weights.

## Use

With in-context-rl installed, on held-out tasks of its family:

```python
import json

import icrl

family = icrl.make_tasks({config.tasks.name!r}{tasks})
{_held_out(config, repo if held_out else None)}
held_out = held_out.take(range(min(8, len(held_out))))
agent = icrl.TransformerAgent(icrl.load_model("{repo}"){_objective(config)})
episodes = {min(config.evaluation.episodes, 20)}
steps = episodes * family.episode_length
histories = icrl.interact(agent, family.make_vec(held_out), steps, icrl.make_seeds(len(held_out), 0))
returns = icrl.episode_returns(histories.reward, histories.ended, episodes)
print(returns.mean(axis=0))  # the mean return, episode by episode
```

Without in-context-rl, `trust_remote_code` loads the model's own code, which needs torch and transformers:

```python
import torch
from transformers import AutoModel

model = AutoModel.from_pretrained("{repo.id}", trust_remote_code=True)
{first_token_code(_space(config, info, "observation_space"), _space(config, info, "action_space"))}
with torch.no_grad():
    logits = model(observation=observation, previous_action=action, previous_reward=reward, boundary=boundary).logits
action = model.sample(logits[:, -1])  # the action of the first step; then append the next token, and so on
```

{token_text()}

## Evaluation

{_evaluation(summary, picture)}

## Training

{_training(info, record)}

## Intended use and limits

For research on in-context and meta-reinforcement learning, on tasks like those of its family: the same spaces, and
parameters like those of its training tasks. Its context is {config.model.context_episodes} episodes long; earlier steps
are forgotten. {_imitates(config)}It has not been tested for any use outside of simulation.

## Licence

{f"{code(licence)}." if licence else "No licence was given; ask the publisher."}
"""


def _held_out(config: ExperimentConfig, repo: Repository | None) -> str:
    """The code that makes the held-out tasks: from the file in `repo`, or by the config's split."""
    if repo is not None:
        where = f", revision={repo.revision!r}" if repo.revision else ""
        path = f'hf_hub_download("{repo.id}", "{TASK_FILES[-1]}"{where})'
        return f"from huggingface_hub import hf_hub_download\n\nheld_out = icrl.Tasks.load({path})"
    sizes = f"{config.own_split.train!r}, {config.own_split.test!r}"
    return f"_, held_out = family.split({sizes}, seed={config.seed_for('split')})"


def _objective(config: ExperimentConfig) -> str:
    """The argument that says how the agent acts, if it does not act as an imitating one."""
    objective = config.training.objective.build()
    if not objective.heads() and type(objective).act is Objective.act:
        return ""
    plain = config.training.objective.model_dump(mode="json")
    values = {key: value for key, value in plain.items() if key != "name"}
    given = f", **json.loads({json.dumps(values)!r})" if values else ""
    return f", objective=icrl.make_objective({plain['name']!r}{given})"


def _imitates(config: ExperimentConfig) -> str:
    if not config.training.imitates:
        return ""
    return (
        "The model imitates its sources: it will hardly end above them, and it explores little where they\n"
        "explored little. "
    )


def _header(config: ExperimentConfig, summary: Summary | None, info: DataInfo | None, licence: str | None) -> str:
    header: dict[str, Any] = {
        "license": licence or "unknown",
        "library_name": "transformers",
        "pipeline_tag": "reinforcement-learning",
        "tags": ["in-context-reinforcement-learning", "algorithm-distillation", config.tasks.name],
    }
    if info is not None and info.given is not None and info.given.repo is not None:
        header["datasets"] = [info.given.repo]
    if summary is not None:
        header["model-index"] = [{"name": config.name, "results": [_result(config, summary)]}]
    return write_yaml(header)


def _result(config: ExperimentConfig, summary: Summary) -> dict[str, Any]:
    """The transformer's figures on held-out tasks, in the format of model-index; without those, on others, by name."""
    metrics = [
        {
            "type": f"{scale}_{figure.key}{suffix}",
            "value": round(float(value or 0.0), 4),
            "name": f"{kind} of the {scale.replace('_', ' ')}, {figure.title}",
        }
        for scale, figure, estimate in summary.estimates(TRANSFORMER, summary.main_split)
        for kind, suffix, value in (("IQM", "", estimate.iqm), ("mean", "_mean", estimate.mean))
    ]
    return {
        "task": {"type": "reinforcement-learning", "name": "in-context reinforcement learning"},
        "dataset": {"type": config.tasks.name, "name": f"{config.tasks.name}, {summary.main_title} tasks"},
        "metrics": metrics,
    }


def _evaluation(summary: Summary | None, picture: bool) -> str:
    """A table with one row per agent and one column per figure, for the main split and for validation tasks."""
    if summary is None:
        return "Not evaluated yet."
    scale = "normalised return (0 random, 1 optimal or best known)" if summary.normalised_return.known else "return"
    notes = [summary.seen, "" if "test" in summary.splits else NO_HELD_OUT]
    tables = [_table(summary, summary.main_split)]
    if "validation" in summary.splits[1:]:
        tables += ["On validation tasks, by which settings may have been chosen:", _table(summary, "validation")]
    if picture:
        tables.append(f"![Return against the episode, {summary.main_title} tasks]({_CURVES})")
    return (
        f"On {summary.main_title} tasks, {scale}: interquartile means over tasks and lifetimes of {summary.episodes} "
        f"episodes, with the {summary.interval} in brackets, and plain means. Weights do not change; every agent has "
        "the same tasks and the same number of steps."
        + "".join(f" Note: {note}." for note in notes if note)
        + "\n\n"
        + "\n\n".join(tables)
    )


def _table(summary: Summary, split: str) -> str:
    shown = summary.shown(brief=True)
    rows = [f"| agent | {' | '.join(plain(figure.title) for figure in shown)} |", "|---|" + "---|" * len(shown)]
    for agent in summary.agents:
        cells = (_cell(summary.value(agent, split, figure), figure.unit) for figure in shown)
        rows.append(f"| {plain(agent)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(value: Estimate | float | None, unit: str) -> str:
    text = value_text(value, unit, mean=False)
    if not isinstance(value, Estimate):
        return text
    low, high = value.mean_interval if unit == "share" else value.interval
    if low is not None and high is not None:
        text += f" ({low:.2f} to {high:.2f})"
    return text + (f", mean {value.mean:.2f}" if unit != "share" and value.mean is not None else "")


def _training(info: DataInfo | None, record: TrainingRecord | None) -> str:
    lines = []
    if info is not None:
        given = info.given.repo if info.given is not None else None
        where = ""
        if info.given is not None and given:
            link = f"https://huggingface.co/datasets/{quote(given)}"
            where = f"; [{plain(given)}]({link}), commit {plain(info.given.commit)}"
        sources = ", ".join(plain(source["name"]) for source in info.sources)
        size = f"{info.num_histories:,} histories of {info.history_steps:,} steps"
        lines.append(f"Data: {size}, sources: {sources}{where}.")
    if record is not None:
        versions = plain(", ".join(f"{name} {version}" for name, version in record.made_with.items()))
        lines.append(f"{record.step:,} updates, loss {record.loss:.3f}, {record.seconds:.0f} s. Made with: {versions}.")
        if record.initial is not None:
            lines.append("Training started from the weights of another model, `training.initial` in `experiment.yaml`.")
    lines.append("All settings are in `experiment.yaml`: `icrl run experiment.yaml` trains the model again.")
    return "\n\n".join(lines)


def _space(config: ExperimentConfig, info: DataInfo | None, name: str) -> dict[str, Any]:
    return dict(getattr(info, name)) if info is not None else to_json(getattr(config.tasks.build(), name))
