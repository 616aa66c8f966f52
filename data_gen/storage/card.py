"""The dataset card: makes the data folder a hub dataset as it lies, and says what it holds."""

import inspect
from pathlib import PurePosixPath
from typing import Any

import yaml

from data_gen.spaces import column_name, json_leaves
from data_gen.storage.info import DataInfo
from icrl.config.components import TASKS, find_component

PICTURE = "learning_curve.png"
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "n>1B")
"""The hub's, from a thousand on by factors of ten."""
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
    """The text of README.md for a data folder.

    Args:
        name: of the data.
        info: the content of its info.json.
        repo: USER/NAME, if it is on the hub.
        licence: the hub's identifier of the licence that the data is under, such as cc-by-4.0.
        picture: whether `PICTURE`, the sources' learning curve, lies beside it.
        config: whether the `config.yaml` that it was made with does.
    """
    return f"""---
{_header(name, info, licence)}---

# {name}: learning histories

{info.num_histories:,} learning histories of {info.history_steps:,} environment steps each. A history is the whole
lifetime of one learner, or of one of its actors, on one task, episodes one after another: what a transformer needs in
order to learn to learn in its context (Algorithm Distillation).
{_curve(picture)}
## Load

```python
from datasets import load_dataset

histories = load_dataset("{repo or "PATH_OR_REPOSITORY"}", split="train").with_format("numpy")
print(histories[0]["reward"].shape)  # ({info.history_steps},)
```

{_needs(info)}`streaming=True` reads one shard after another. A config of in-context-rl that says
`data: {{repo: {repo or "USER/NAME"}}}` trains on it.

## Tasks

{_tasks(info)}

| split | tasks | histories |
|---|---|---|
| train | {_count(info.num_train_tasks)} | {info.num_histories:,} |
| held out, for evaluation | {_count(info.num_test_tasks)} | none: nothing here comes from them |

`tasks-train.npz` and `tasks-test.npz` hold the tasks, where they are known, as arrays with a row a task.

## Columns

| column | shape | unit | what |
|---|---|---|---|
{_columns(info)}

A step's row says what was seen before its action, the action, and what came of it; the row after an episode's last one
begins the next episode, and a history may end in the middle of one.

## Sources

By the number in the column `source`, with their hyper-parameters:

{_sources(info)}

## How it was made

{_origin(info, config)}

## Licence

{f"`{licence}`." if licence else "None was given; ask whoever published this."}

## Citation

```bibtex
{_CITATION}
```
"""


def config_name(name: str, info: DataInfo) -> str:
    """What `datasets` calls the data set."""
    return f"{name}-{info.fingerprint}"


def _header(name: str, info: DataInfo, licence: str | None) -> str:
    first = PurePosixPath(info.shards[0]["file"])
    size = min(max(0, len(str(info.num_histories)) - 3), len(_SIZES) - 1)
    header = {
        "pretty_name": f"{name}: learning histories",
        "license": licence or "unknown",
        "task_categories": ["reinforcement-learning"],
        "size_categories": [_SIZES[size]],
        "tags": ["in-context-reinforcement-learning", "learning-histories", "meta-reinforcement-learning"],
        # `datasets` caches by this name and the pattern: without the fingerprint it would serve another run's rows.
        "configs": [
            {
                "config_name": config_name(name, info),
                "default": True,
                "data_files": [{"split": "train", "path": str(first.with_name(f"train-*{first.suffix}"))}],
            }
        ],
    }
    return str(yaml.safe_dump(header, sort_keys=False))


def _needs(info: DataInfo) -> str:
    return "" if info.shards[0]["file"].endswith(".parquet") else "`datasets` needs h5py for it. "


def _curve(picture: bool) -> str:
    return f"\n![The sources' mean return, episode by episode]({PICTURE})\n" if picture else ""


def _tasks(info: DataInfo) -> str:
    length = f"An episode lasts at most {info.episode_length} steps."
    if info.tasks is None or info.tasks["name"] not in TASKS:
        said = "of" if info.tasks is None else f"`{info.tasks}`, of"
        return f"The tasks are {said} a family that is none of in-context-rl's own. {length}"
    family = inspect.getdoc(find_component(info.tasks["name"], TASKS)) or ""
    quoted = "\n".join(f"> {line}".rstrip() for line in family.splitlines())
    return f"`{info.tasks}`. {length}\n\n{quoted}"


def _count(number: int | None) -> str:
    return "not known" if number is None else f"{number:,}"


def _columns(info: DataInfo) -> str:
    steps = f"(histories, {info.history_steps}"
    rows = [
        (
            f"`{column_name('observation', path)}`",
            _shape(steps, leaf),
            "the environment's",
            f"before the action; `{_space(leaf)}`",
        )
        for path, leaf in json_leaves(info.observation_space).items()
    ]
    action = _shape(steps, info.action_space)
    rows.append(("`action`", action, "the environment's", f"what the source did; `{_space(info.action_space)}`"))
    if info.optimal_actions:
        rows.append(
            ("`optimal_action`", action, "the environment's", "what the optimal policy, or an expert, would do there")
        )
    rows += [
        ("`reward`", f"{steps})", "reward", "what the action earned"),
        ("`terminated`, `truncated`", f"{steps})", "true or false", "whether this step ended its episode, and how"),
        ("`history`, `task`, `source`", "(histories,)", "number", "the history's own, its task's, its source's"),
        ("`seed`, `actor`", "(histories,)", "number", "its learner's seed, and which of its actors it is of"),
        *(
            (f"`{name}`", "(histories,)", "the parameter's", "its learner's own, NaN of other sources")
            for name in info.swept
        ),
        ("`task_*`", "(histories, ...)", "the environment's", "the task's parameters, where known"),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _shape(steps: str, space: dict[str, Any]) -> str:
    element = space.get("shape") or _extents(space.get("nvec", []))
    return f"{steps}{''.join(f', {size}' for size in element)})"


def _extents(values: Any) -> list[int]:
    return [len(values), *_extents(values[0])] if isinstance(values, list) and values else []


def _space(space: dict[str, Any]) -> str:
    """A space, with a MultiDiscrete's or Box's long lists cut short."""
    text = ", ".join(f"{key}={value}" for key, value in space.items() if key != "type")
    return f"{space['type']}({text if len(text) < 120 else text[:117] + '...'})"


def _sources(info: DataInfo) -> str:
    lines = []
    for number, source in enumerate(info.sources):
        values = yaml.safe_dump(source, default_flow_style=True, width=10**6).strip()
        trained = info.meta_learners.get(f"data.sources.{number}") if info.meta_learners else None
        cost = f", meta-trained with {trained['environment_steps']:,} environment steps" if trained else ""
        lines.append(f"{number}. `{values}`{cost}")
    return "\n".join(lines)


def _origin(info: DataInfo, config: bool) -> str:
    made = ", ".join(f"{name} {version}" for name, version in info.made_with.items())
    if info.seed is None:
        return f"Recorded elsewhere, and written as a data set with: {made}."
    how = f"seed {info.seed}, in {info.seconds:.0f} s, with: {made}."
    if not config:
        return f"By `icrl generate`, {how} The config is not here, but for what is said above."
    return f"`icrl generate --config config.yaml`, with the `config.yaml` of this repository, {how}"
