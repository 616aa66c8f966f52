"""A trained model as a repository of the hub: its files, and a card with its evaluation, limits and how to use it."""

import json
from pathlib import Path
from typing import Any

import yaml

import ad_model
from data_gen.spaces import json_leaves, to_json
from data_gen.storage.folder import load_info
from data_gen.storage.info import DataInfo
from eval.evaluate import evaluated_weights, model_path
from eval.results import TRANSFORMER, load_summary
from icrl.config.schema import ExperimentConfig
from icrl.run.checkpoints import checkpoint_record
from icrl.run.folder import RunFolder
from icrl.support.errors import UserError
from icrl.support.hub import Repository
from publish.data import without_output
from publish.push import Parcel

_WEIGHTS = ("*.safetensors", "*.json")
_CURVES = "curves.png"


def model_parcel(config: ExperimentConfig, folder: RunFolder, repo: Repository, licence: str | None = None) -> Parcel:
    """Everything that is sent of a trained model: weights as safetensors alone, its code, its card, and the report.

    Raises UserError if training is not finished, or the evaluation is of other weights.
    """
    path = model_path(config, folder)
    files: dict[str, Path | bytes] = {
        file.name: file for pattern in _WEIGHTS for file in sorted(path.glob(pattern)) if file.is_file()
    }
    if not any(name.endswith(".safetensors") for name in files):
        raise UserError(f"{path}: has no weights as safetensors; nothing else is pushed")
    files |= {file.name: file for file in sorted(Path(ad_model.__file__).parent.glob("*_ad.py"))}
    summary = load_summary(folder) if folder.summary.exists() else None
    if summary is not None and summary["weights"] != evaluated_weights(config, folder, path):
        raise UserError(f"{folder.eval}: is of other weights than {path}: run `icrl evaluate --overwrite`")
    picture = folder.report_pictures / _CURVES
    if summary is not None:
        files["summary.json"] = folder.summary
        if folder.report.exists():  # else its pictures may be of an earlier evaluation
            files |= {"report.html": folder.report, _CURVES: picture}
    info = load_info(folder) if folder.data_info.exists() else None
    files["experiment.yaml"] = without_output(folder.config)
    record = checkpoint_record(path.parent) if config.evaluation.checkpoint is None else None
    card = model_card(config, repo, summary, info, record, licence, _CURVES in files)
    replaced = (*_WEIGHTS, "*_ad.py", "*.bin", "*.pt")
    return Parcel({**files, "README.md": card.encode()}, replaced, f"Model: {config.name}")


def model_card(
    config: ExperimentConfig,
    repo: Repository,
    summary: dict[str, Any] | None,
    info: DataInfo | None,
    record: dict[str, Any] | None,
    licence: str | None,
    picture: bool,
) -> str:
    """The text of a model's README.md.

    Args:
        config: the experiment's.
        repo: where it goes.
        summary: of its evaluation, if there was one.
        info: of the data that it was trained on, if it is there.
        record: of its checkpoint, if it is the run's own.
        licence: the hub's identifier of its licence.
        picture: whether the learning curves lie beside it.
    """
    family = config.tasks.name
    tasks = json.dumps(config.tasks.model_dump(mode="json"))
    return f"""---
{_header(config, summary, info, licence)}---

# {config.name}

A causal transformer that learns *in its context*: trained to predict the next action of learning histories on
`{family}` (Algorithm Distillation, Laskin et al. 2023), it is put into a task that it has never seen and gets better
from one episode to the next, with frozen weights.

## Use

With in-context-rl installed, on held-out tasks of its family:

```python
import json

from icrl.config.sections import TasksComponent
from data_gen.returns import episode_returns
from data_gen.interaction import interact
from data_gen.streams import make_seeds
from eval.evaluate import load_model
from eval.in_context import TransformerAgent

family = TasksComponent.model_validate(json.loads({tasks!r})).build()
_, held_out = family.split({config.split.train!r}, {config.split.test!r}, seed={config.seed})
held_out = held_out.take(range(min(8, len(held_out))))
agent = TransformerAgent(load_model("{repo}"))
episodes = {min(config.evaluation.episodes, 20)}
life = interact(agent, family.make_vec(held_out), episodes * family.episode_length, make_seeds(len(held_out), 0))
print(episode_returns(life.reward, life.ended, episodes).mean(axis=0))  # the mean return, episode by episode
```

Without it, `trust_remote_code` loads the model's own code, which needs torch, transformers and einops:

```python
import torch
from transformers import AutoModel

model = AutoModel.from_pretrained("{repo.id}", trust_remote_code=True)
{_first_token(json_leaves(_space(config, info, "observation_space")), _space(config, info, "action_space"))}
with torch.no_grad():
    logits = model(observation=observation, previous_action=action, previous_reward=reward, boundary=boundary).logits
action = model.sample(logits[:, -1])  # of the first step; the next token goes behind it, and so on
```

A token carries what was seen before a step, and of the step before it the action, the reward, and `boundary`: 0 within
an episode, 1 after its end, 2 at the very start.

## Evaluation

{_evaluation(summary, picture)}

## Training

{_training(config, info, record)}

## Intended use and limits

For research on in-context and meta-reinforcement learning, on tasks like those of its family: the same spaces, and
parameters such as those that it was trained on. Its context is {config.model.context_episodes} episodes long, and what
lies further back is forgotten. It does what its sources did, so it will hardly end above them, and where they explore
little, it explores little. It has not been tested for anything that matters outside of simulation.

## Licence

{f"`{licence}`." if licence else "None was given; ask whoever published this."}
"""


def _header(
    config: ExperimentConfig, summary: dict[str, Any] | None, info: DataInfo | None, licence: str | None
) -> str:
    header: dict[str, Any] = {
        "license": licence or "unknown",
        "library_name": "transformers",
        "pipeline_tag": "reinforcement-learning",
        "tags": ["in-context-reinforcement-learning", "algorithm-distillation", config.tasks.name],
    }
    given = (info or {}).get("given", {}).get("repo")
    if given:
        header["datasets"] = [given]
    if summary is not None:
        header["model-index"] = [{"name": config.name, "results": [_result(config, summary)]}]
    return str(yaml.safe_dump(header, sort_keys=False))


def _result(config: ExperimentConfig, summary: dict[str, Any]) -> dict[str, Any]:
    """The transformer's figures on held-out tasks, as model-index has them."""
    last = summary["num_final_episodes"]
    metrics = []
    for column in ("return", "normalised_return"):
        figures = summary["agents"][TRANSFORMER]["test"][column]
        for key, what in (("first_episode", "episode 1"), ("final_episodes", f"last {last} episodes")):
            if figures[key]["iqm"] is not None:
                name = f"IQM of the {column.replace('_', ' ')}, {what}"
                metrics.append({"type": f"{column}_{key}", "value": round(figures[key]["iqm"], 4), "name": name})
    return {
        "task": {"type": "reinforcement-learning", "name": "in-context reinforcement learning"},
        "dataset": {"type": config.tasks.name, "name": f"{config.tasks.name}, held-out tasks"},
        "metrics": metrics,
    }


def _evaluation(summary: dict[str, Any] | None, picture: bool) -> str:
    if summary is None:
        return "None yet."
    known = summary["normalised_return"]["known"]
    column = "normalised_return" if known else "return"
    said = "normalised return (0 random, 1 optimal or best known)" if known else "return"
    last = summary["num_final_episodes"]
    rows = [f"| agent | episode 1 | last {last} of {summary['episodes']} | 95% interval |", "|---|---|---|---|"]
    for agent, splits in summary["agents"].items():
        first, end = (splits["test"][column][key] for key in ("first_episode", "final_episodes"))
        shown = ["" if value is None else f"{value:.2f}" for value in (first["iqm"], end["iqm"], *end["interval"])]
        rows.append(f"| {agent} | {shown[0]} | {shown[1]} | {shown[2]} to {shown[3]} |")
    curves = f"\n\n![Return against the episode, held-out tasks]({_CURVES})" if picture else ""
    head = (
        f"On held-out tasks, {said}: interquartile means over tasks and lifetimes, intervals by bootstrap over tasks."
    )
    return f"{head} The weights do not change; every agent has the same tasks and as many steps.\n\n" + (
        "\n".join(rows) + curves
    )


def _training(config: ExperimentConfig, info: DataInfo | None, record: dict[str, Any] | None) -> str:
    lines = []
    if info is not None:
        given = info.get("given", {}).get("repo")
        where = f"[{given}](https://huggingface.co/datasets/{given}), commit {info['given']['commit']}" if given else ""
        sources = ", ".join(str(source["name"]) for source in info.sources)
        size = f"{info.num_histories:,} histories of {info.history_steps:,} steps"
        lines.append(f"Data: {size}, sources: {sources}{f'; {where}' if where else ''}.")
    if record is not None:
        made = ", ".join(f"{name} {version}" for name, version in record.get("made_with", {}).items())
        lines.append(
            f"{record['step']:,} updates, loss {record['loss']:.3f}, {record['seconds']:.0f} s. Made with: {made}."
        )
    lines.append("All settings are in `experiment.yaml`: `icrl run --config experiment.yaml` makes it again.")
    return "\n\n".join(lines)


def _space(config: ExperimentConfig, info: DataInfo | None, name: str) -> dict[str, Any]:
    return dict(info[name]) if info is not None else to_json(getattr(config.tasks.build(), name))


def _first_token(observations: dict[str, dict[str, Any]], action: dict[str, Any]) -> str:
    """Code that makes the token of a lifetime's first step."""
    zeros = {path: _zeros(space) for path, space in observations.items()}
    seen = zeros[""] if "" in zeros else "{" + ", ".join(f'"{path}": {value}' for path, value in zeros.items()) + "}"
    return "\n".join(
        [
            f"observation = {seen}  # (lifetimes, steps, ...)",
            f"action, reward = {_zeros(action)}, torch.zeros(1, 1)",
            "boundary = torch.full((1, 1), 2)",
        ]
    )


def _zeros(space: dict[str, Any]) -> str:
    if space["type"] == "Discrete":
        return f"torch.full((1, 1), {space['start']})"
    if space["type"] == "MultiDiscrete":
        return f"torch.tensor([[{json.dumps(space['start'])}]])"
    kind = "uint8" if space["dtype"] == "uint8" else "float32"
    return f"torch.zeros({', '.join(map(str, (1, 1, *space['shape'])))}, dtype=torch.{kind})"
