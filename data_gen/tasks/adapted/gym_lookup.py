"""Looks up the environments and wrappers that a config names, and checks what they take and give."""

import difflib
import importlib
import inspect
import json
import re
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator

from data_gen.spaces import is_column_name, storage_type, to_json
from data_gen.streams import SlotStreams, make_seeds
from data_gen.tasks.adapted.block import Space
from data_gen.tasks.adapted.variation import find_attribute
from data_gen.tasks.base import sample_actions
from icrl.support.errors import UserError, did_you_mean, shown

RESERVED = {
    "max_episode_steps": "give episode_length",
    "render_mode": "leave it out",
    "disable_env_checker": "leave it out",
}
"""Arguments of `gymnasium.make` that are not the environment's own, and what to do instead."""


def find_spec(env_id: str) -> EnvSpec:
    """The spec of the id, after importing its module. Raises ValueError, with the nearest id, if the id is unknown."""
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except Exception as error:  # importing may raise any error
            why = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"env_id {shown(env_id)}: cannot import {module!r} ({why}): install its package"
            ) from error
    spec = gymnasium.registry.get(name)
    if spec is None:
        near = difflib.get_close_matches(name, gymnasium.registry, n=1)
        hint = did_you_mean(name, near) if near else "; to import its package first, write package:Id-v0"
        raise ValueError(f"env_id {shown(env_id)}: is not a registered environment{hint}")
    if spec.entry_point is None:
        raise ValueError(f"env_id {shown(env_id)} has only a vector form: give an id with a scalar form")
    return spec


def unknown_keyword(spec: EnvSpec, kwargs: dict[str, Any]) -> UserError | None:
    """The error for the first of `kwargs` that the environment does not take; None if it takes them all."""
    creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    known = inspect.signature(creator).parameters if creator is not None else {}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    unknown = [name for name in kwargs if name not in known and not takes_any]
    if not unknown:
        return None
    valid = [name for name in known if name not in RESERVED]
    return UserError(f"{spec.id}: takes no argument {unknown[0]!r}{did_you_mean(unknown[0], valid)}")


def find_wrapper(position: int, wrapper: dict[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The wrapper class and its arguments. Raises ValueError, which names the wrapper's position, if not found."""
    where = f"wrappers.{position}"
    if "name" not in wrapper:
        raise ValueError(f"{where}: give a name, as module:Class or as a class of gymnasium.wrappers")
    kind = find_attribute(f"{where}.name", wrapper["name"], "gymnasium.wrappers")
    return kind, {key: value for key, value in wrapper.items() if key != "name"}


def check_supported(env_id: str, observation_space: Space, action_space: Space) -> None:
    """Raises UserError for spaces that cannot be recorded; names a wrapper that leaves out the part at fault."""
    try:
        storage_type(action_space)
        sample_actions(action_space, SlotStreams(make_seeds(1, 0)))  # refuses a Box without bounds
    except UserError as error:
        raise UserError(f"{env_id}: action space: {error}") from error
    try:
        to_json(observation_space)
    except UserError as error:
        if not isinstance(observation_space, gymnasium.spaces.Dict):
            raise UserError(f"{env_id}: observation space: {error}") from error
        kept = [name for name, part in observation_space.items() if _is_supported(part)]
        if not kept:
            raise UserError(f"{env_id}: observation space: {error}") from error
        keys = ", ".join(
            str(name) if re.fullmatch(r"[A-Za-z_][\w./-]*", str(name)) else json.dumps(name) for name in kept
        )
        if all(is_column_name(name) for name in kept):
            line = f"wrappers: [{{name: FilterObservation, filter_keys: [{keys}]}}]"
        else:  # such as dm_control's `walker/joints`: the parts are fine, their names are not
            filtered = f"{{name: FilterObservation, filter_keys: [{keys}]}}, "
            rest = len(kept) < len(observation_space.spaces)
            line = f"wrappers: [{filtered if rest else ''}{{name: FlattenObservation}}], which needs no keys"
        raise UserError(f"{env_id}: {error}, for instance by {line}") from error


def _is_supported(space: Space) -> bool:
    try:
        to_json(space)
    except UserError:
        return False
    return True
