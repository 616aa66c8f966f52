"""The token: one per environment step. Only this file knows the layout of a token; all other code calls this file.

The token of step t carries the observation of step t, and the result of step t-1: its action, its reward, and a
*boundary* between the two steps. There are three cases:

    within an episode     the action and the reward of step t-1
    an episode ended      the *real* last action and reward of that episode, with the next episode's first observation
    a lifetime starts     the null action of the space and reward 0, since step t-1 does not exist

The model predicts the action of step t from the tokens up to t. One token per step, where the paper (Laskin et al.
2022) has three, holds three times the history in the same context, at a third of the cost.

A batch of tokens is a mapping of *token columns*: `observation`, or one column per leaf of a Dict or Tuple observation
(`observation.image`), and `previous_action`, `previous_reward`, `boundary`.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.spaces import column_name, json_leaves, leaves, null_element

WITHIN_EPISODE, EPISODE_ENDED, LIFETIME_STARTS = 0, 1, 2
"""Values of `boundary`."""

RESULT_COLUMNS = ("previous_action", "previous_reward", "boundary")
"""The columns that carry the result of the step before."""

Columns = dict[str, NDArray[Any]]


def token_columns(observation_space: dict[str, Any]) -> list[str]:
    """Names of the token columns for an observation space, given as plain values."""
    return [*(column_name("observation", path) for path in json_leaves(observation_space)), *RESULT_COLUMNS]


def observation_columns(observation: Any) -> dict[str, Any]:
    """The columns of a batch of observations (an array or a tree of arrays), or of their space, by name."""
    return {column_name("observation", path): leaf for path, leaf in leaves(observation).items()}


def first_result(action_space: dict[str, Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Columns:
    """The result columns of the first token of each lifetime, which has no step before it.

    Args:
        action_space: the action space as plain values.
        shape: shape of the actions, (num_envs, ...).
        dtype: dtype of the actions.
    """
    return {
        "previous_action": null_element(action_space, shape, dtype),
        "previous_reward": np.zeros(shape[:1], np.float32),
        "boundary": np.full(shape[:1], LIFETIME_STARTS, np.uint8),
    }


def next_result(action: NDArray[Any], reward: NDArray[Any], ended: NDArray[np.bool_]) -> Columns:
    """The result columns of the tokens that follow a step: action, reward, and boundary.

    Args:
        action, reward, ended: (num_envs, ...), (num_envs,), (num_envs,); `ended` is True if the step ended an episode.
    """
    boundary = np.where(ended, EPISODE_ENDED, WITHIN_EPISODE).astype(np.uint8)
    return {"previous_action": action, "previous_reward": reward, "boundary": boundary}


def tokens_in_order(
    observation: Columns,
    action: NDArray[Any],
    reward: NDArray[Any],
    ended: NDArray[np.bool_],
    starts: NDArray[np.intp],
    action_space: dict[str, Any],
) -> Columns:
    """Token columns, (steps, ...), of several sequences of steps that lie one after another.

    Args:
        observation: by column, (steps, ...).
        action, reward, ended: (steps, ...), (steps,), (steps,).
        starts: the first row of each sequence, where a lifetime starts. Row 0 is among them.
        action_space: the action space as plain values.
    """
    # Every token carries the result of the step before it; the first of a sequence has no such step.
    before = next_result(_shifted(action), _shifted(reward), _shifted(ended))
    at_start = first_result(action_space, (len(starts), *action.shape[1:]), action.dtype)
    for name, values in before.items():
        values[starts] = at_start[name]
    return {**observation, **before}


def starts_episode(token: Columns) -> NDArray[np.bool_]:
    """(num_envs,) True where a token is the first of an episode that follows another one."""
    starts: NDArray[np.bool_] = token["boundary"] == EPISODE_ENDED
    return starts


def without_rewards(token: Columns) -> Columns:
    """The token with reward 0."""
    return {**token, "previous_reward": np.zeros_like(token["previous_reward"])}


def without_ends(token: Columns) -> Columns:
    """The token without the mark of an episode's end: steps of two episodes look like steps of one."""
    boundary = token["boundary"]
    return {**token, "boundary": np.where(boundary == EPISODE_ENDED, WITHIN_EPISODE, boundary).astype(boundary.dtype)}


def model_inputs(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `ADModel.forward` from token columns; a Dict or Tuple observation is one mapping."""
    seen = {name.partition(".")[2]: values for name, values in columns.items() if name.startswith("observation")}
    return {"observation": seen.get("", seen), **{name: columns[name] for name in RESULT_COLUMNS}}


def first_token_code(observation_space: dict[str, Any], action_space: dict[str, Any]) -> str:
    """Python code that builds the first token of a lifetime from zeros, for a model card."""
    zeros = {path: _zeros(space) for path, space in json_leaves(observation_space).items()}
    seen = zeros[""] if "" in zeros else "{" + ", ".join(f'"{path}": {value}' for path, value in zeros.items()) + "}"
    return "\n".join(
        [
            f"observation = {seen}  # (lifetimes, steps, ...)",
            f"action, reward = {_zeros(action_space)}, torch.zeros(1, 1)",
            f"boundary = torch.full((1, 1), {LIFETIME_STARTS})",
        ]
    )


def token_text() -> str:
    """The layout of a token in two sentences, for a model card."""
    return (
        "A token carries the observation before a step, and the action, reward and `boundary` of the step before it. "
        f"`boundary` is {WITHIN_EPISODE} within an episode, {EPISODE_ENDED} after its end, and {LIFETIME_STARTS} at "
        "the start of a lifetime."
    )


def _shifted(values: NDArray[Any]) -> NDArray[Any]:
    """Each row's predecessor. The first row gets the last row, which the caller overwrites: a sequence starts there."""
    return np.roll(values, 1, axis=0)


def _zeros(space: dict[str, Any]) -> str:
    if space["type"] == "Discrete":
        return f"torch.full((1, 1), {space['start']})"
    if space["type"] == "MultiDiscrete":
        return f"torch.tensor([[{json.dumps(space['start'])}]])"
    kind = "uint8" if space["dtype"] == "uint8" else "float32"
    return f"torch.zeros({', '.join(map(str, (1, 1, *space['shape'])))}, dtype=torch.{kind})"
