"""The dataset card: makes the data folder a hub dataset as it lies, and says what it holds."""

from typing import Any

import yaml

from data_gen.spaces import column_name, json_leaves


def dataset_card(name: str, info: dict[str, Any]) -> str:
    """The text of README.md for a data folder, from its name and the content of its info.json."""
    header = yaml.safe_dump(
        {
            "pretty_name": f"{name}: learning histories",
            "tags": ["reinforcement-learning", "in-context-reinforcement-learning", "learning-histories"],
            # `datasets` caches by this name and the pattern: without the fingerprint it would serve another run's rows.
            "configs": [
                {
                    "config_name": f"{name}-{info['fingerprint']}",
                    "default": True,
                    "data_files": [{"split": "train", "path": "train-*.h5"}],
                }
            ],
        },
        sort_keys=False,
    )
    steps = f"(histories, {info['num_steps']}"
    observation = "\n".join(
        f"| `{column_name('observation', path)}` | {steps}, ...) | before the action; space `{leaf}` |"
        for path, leaf in json_leaves(info["observation_space"]).items()
    )
    sources = "\n".join(f"- `{yaml.safe_dump(source, default_flow_style=True).strip()}`" for source in info["sources"])
    label = ""
    if info["optimal_actions"]:
        label = f"| `optimal_action` | {steps}, ...) | what the optimal policy would do there |\n"
    swept = "".join(
        f"| `{name}` | (histories,) | its learner's own value, NaN of another source |\n" for name in info["swept"]
    )
    return f"""---
{header}---

# {name}: learning histories

{info["num_histories"]:,} learning histories of {info["num_steps"]:,} environment steps each, on
{info["num_train_tasks"]:,} training tasks of `{info["tasks"]["name"]}`. A history is the whole lifetime of one
learner, or of one of its actors, on one task, episodes one after another; {info["num_test_tasks"]:,} further tasks are
held out, and nothing here comes from them.

```python
from datasets import load_dataset

histories = load_dataset("PATH_OR_REPOSITORY", split="train").with_format("numpy")
print(histories[0]["reward"].shape)  # ({info["num_steps"]},)
```

| column | shape | what |
|---|---|---|
{observation}
| `action` | {steps}, ...) | space `{info["action_space"]}` |
| `reward` | {steps}) | what the action earned |
| `terminated`, `truncated` | {steps}) | whether this step ended its episode, and how |
{label}| `history`, `task`, `source` | (histories,) | its number, its training task's, its source's |
| `seed`, `actor` | (histories,) | its learner's seed, and which of the learner's actors it is of |
{swept}| `task_*` | (histories, ...) | the task's own parameters |

An episode lasts at most {info["episode_length"]} steps. Tasks: `{info["tasks"]}`. Sources, by number:

{sources}

`tasks-train.npz` and `tasks-test.npz` hold the tasks, `info.json` the spaces, sources and checksums.
"""
