"""The data set card: describes a data folder, and makes it a hub data set as it is."""

import inspect
import re
from pathlib import PurePosixPath
from typing import Any

from data_gen.spaces import column_name, json_leaves
from data_gen.storage.info import DataInfo
from icrl.config.components import TASKS, find_component
from icrl.config.loader import fingerprint
from icrl.support.markdown import code, plain
from icrl.support.yaml12 import write_yaml

PICTURE = "learning_curve.png"
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "n>1B")
"""The hub's size categories: below a thousand rows, then by factors of ten."""
_CITATION = """@software{in_context_rl,
  title = {in-context-rl: the pipeline for in-context reinforcement learning},
  year = {2026},
}
@inproceedings{laskin2023incontext,
  title = {In-context Reinforcement Learning with Algorithm Distillation},
  author = {Laskin, Michael and Wang, Luyu and Oh, Junhyuk and Parisotto, Emilio and Spencer, Stephen and others},
  booktitle = {International Conference on Learning Representations},
  year = {2023},
}"""


def dataset_card(
    name: str,
    info: DataInfo,
    repo: str | None = None,
    licence: str | None = None,
    picture: bool = False,
    config: bool = False,
) -> str:
    """The text of a data folder's README.md.

    Args:
        name: name of the data.
        info: the data's record.
        repo: USER/NAME, if the data is on the hub.
        licence: the hub's identifier of the data's licence, such as cc-by-4.0.
        picture: True if `PICTURE`, the sources' learning curve, lies beside the card.
        config: True if the `config.yaml` that the data was made with lies beside the card.
    """
    return f"""---
{_header(name, info, licence)}---

# {plain(name)}: learning histories

{info.num_histories:,} learning histories of {info.history_steps:,} environment steps each. A history is the whole
lifetime of one learner, or of one of its actors, on one task, episodes one after another. A transformer that is trained
on histories learns to learn in its context (Algorithm Distillation).
{_curve(picture)}
## Load

```python
from datasets import load_dataset

histories = load_dataset("{repo or "PATH_OR_REPOSITORY"}", split="train").with_format("numpy")
print(histories[0]["reward"].shape)  # ({info.history_steps},)
```

{_needs(info)}`streaming=True` reads one shard after another. To train on this data, write
`data: {{repo: {repo or "USER/NAME"}}}` in a config of in-context-rl.

## Tasks

{_tasks(info)}

| split | tasks | histories |
|---|---|---|
| train | {_count(info.num_train_tasks)} | {info.num_histories:,} |
| validation, for choices | {_count(info.num_validation_tasks)} | none |
| held-out, for evaluation | {_count(info.num_test_tasks)} | none: no data comes from them |

`tasks-train.npz`, `tasks-validation.npz` and `tasks-test.npz` hold the tasks, where there are any and they are known,
as arrays with one row per task. A run of in-context-rl on this data takes this split by itself.

## Columns

| column | shape | unit | content |
|---|---|---|---|
{_columns(info)}

The row of a step holds the observation before the action, the action, and its result. The row after the last step of an
episode is the first step of the next episode. A history may end in the middle of an episode.

## Sources

Numbered as in the column `source`, with their hyper-parameters:

{_sources(info)}

## How it was made

{_origin(info, config)}

## Licence

{f"{code(licence)}." if licence else "No licence was given; ask the publisher."}

## Citation

```bibtex
{_CITATION}
```
"""


def config_name(name: str, info: DataInfo) -> str:
    """The name of the data set's configuration in `datasets`.

    `datasets` caches rows by this name, so it follows from the bytes of the shards. It refuses names with characters
    that some file system does not have.
    """
    content = fingerprint([shard.sha256 for shard in info.shards])
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[:80]}-{content}"


def _header(name: str, info: DataInfo, licence: str | None) -> str:
    """The card's metadata for the hub, as YAML."""
    first = PurePosixPath(info.shards[0].file)
    size = min(max(0, len(str(info.num_histories)) - 3), len(_SIZES) - 1)
    header = {
        "pretty_name": f"{re.sub('[<>]', '-', name)}: learning histories",
        "license": licence or "unknown",
        "task_categories": ["reinforcement-learning"],
        "size_categories": [_SIZES[size]],
        "tags": ["in-context-reinforcement-learning", "learning-histories", "meta-reinforcement-learning"],
        # `datasets` caches by this name and the pattern: another name for other rows.
        "configs": [
            {
                "config_name": config_name(name, info),
                "default": True,
                "data_files": [{"split": "train", "path": str(first.with_name(f"train-*{first.suffix}"))}],
            }
        ],
    }
    return write_yaml(header)


def _needs(info: DataInfo) -> str:
    return "" if info.shards[0].file.endswith(".parquet") else "`datasets` needs h5py to read this data set. "


def _curve(picture: bool) -> str:
    return f"\n![The sources' mean return, episode by episode]({PICTURE})\n" if picture else ""


def _tasks(info: DataInfo) -> str:
    length = f"An episode lasts at most {info.episode_length} steps."
    if info.tasks is None or info.tasks["name"] not in TASKS:
        named = "" if info.tasks is None else f": {code(info.tasks)}"
        return f"The task family is not one of in-context-rl's own{named}. {length}"
    family = inspect.getdoc(find_component(info.tasks["name"], TASKS)) or ""
    quoted = "\n".join(f"> {line}".rstrip() for line in family.splitlines())
    return f"{code(info.tasks)}. {length}\n\n{quoted}"


def _count(number: int | None) -> str:
    return "not known" if number is None else f"{number:,}"


def _columns(info: DataInfo) -> str:
    """The rows of the card's table of columns."""
    steps = f"(histories, {info.history_steps}"
    rows = [
        (
            code(column_name("observation", path)),
            _shape(steps, leaf),
            "the environment's",
            f"the observation before the action; {code(_space(leaf))}",
        )
        for path, leaf in json_leaves(info.observation_space).items()
    ]
    action = _shape(steps, info.action_space)
    rows.append(("`action`", action, "the environment's", f"the source's action; {code(_space(info.action_space))}"))
    if info.optimal_actions:
        rows.append(
            ("`optimal_action`", action, "the environment's", "the action of the optimal policy, or of an expert")
        )
    rows += [
        ("`reward`", f"{steps})", "reward", "the action's reward"),
        (
            "`terminated`, `truncated`",
            f"{steps})",
            "true or false",
            "true if the step ended its episode, and in which way",
        ),
        ("`history`, `task`, `source`", "(histories,)", "number", "numbers of the history, its task and its source"),
        ("`seed`, `actor`", "(histories,)", "number", "the learner's seed, and the number of its actor"),
        *(
            (code(name), "(histories,)", "the parameter's", "the learner's own value; NaN for other sources")
            for name in info.swept
        ),
        ("`task_*`", "(histories, ...)", "the environment's", "the task's parameters, if known"),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _shape(steps: str, space: dict[str, Any]) -> str:
    element = space.get("shape") or _extents(space.get("nvec", []))
    return f"{steps}{''.join(f', {size}' for size in element)})"


def _extents(values: Any) -> list[int]:
    return [len(values), *_extents(values[0])] if isinstance(values, list) and values else []


def _space(space: dict[str, Any]) -> str:
    """A space as text, with long lists cut short."""
    text = ", ".join(f"{key}={value}" for key, value in space.items() if key != "type")
    return f"{space['type']}({text if len(text) < 120 else text[:117] + '...'})"


def _sources(info: DataInfo) -> str:
    lines = []
    for number, source in enumerate(info.sources):
        values = write_yaml(source, default_flow_style=True, sort_keys=True, width=10**6).strip()
        trained = info.meta_learners.get(f"data.sources.{number}")
        cost = f", meta-trained with {trained.environment_steps:,} environment steps" if trained else ""
        lines.append(f"{number}. {code(values)}{cost}")
    return "\n".join(lines)


def _origin(info: DataInfo, config: bool) -> str:
    versions = plain(", ".join(f"{name} {version}" for name, version in info.made_with.items()))
    if info.seed is None:
        return f"Recorded elsewhere, and written in this format with: {versions}."
    split = "" if info.split_seed in (None, info.seed) else f", split with seed {info.split_seed}"
    how = f"seed {info.seed}{split}, in {info.seconds:.0f} s, with: {versions}."
    if not config:
        return f"Generated by `icrl generate`, {how} The config is not part of this repository."
    return f"Generated by `icrl generate config.yaml`, with the `config.yaml` of this repository, {how}"
