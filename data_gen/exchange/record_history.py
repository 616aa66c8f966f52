"""Wrappers that write down what happens in a Gymnasium environment: anyone's own training leaves learning histories.

    env = RecordHistory(gymnasium.make("CartPole-v1"))
    PPO("MlpPolicy", env).learn(100_000)
    save_histories("cart_pole_data", [env])

`RecordHistory` is for one environment, `RecordVectorHistory` for a vector environment, each slot of which has a history
of its own. A step is recorded as the *wrapped* environment lives it: the observation that it showed before the step,
the action that it was given, the reward that it gave. So the wrapper goes inside everything that changes what the
learner sees (normalised observations and rewards, clipped rewards, stacked frames): a trained transformer meets the
environment itself, and running means are another scale at every step. It goes outside of what belongs to the task: a
time limit, a filter of the observations, pictures of another size.

A history is all that happened after the first reset, so evaluate in another environment. A reset before an episode's
end (a second `learn`, a new iteration) cuts that episode: its last step is recorded as truncated, which it was. A reset
that no step follows leaves nothing.

Steps are held in memory in the compact types of the shards: CartPole takes 23 bytes a step, 84x84 pictures 7 kB.
"""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from numpy.typing import NDArray

from data_gen.exchange.recording import Recording, save_histories
from data_gen.spaces import Space, column_name, leaves, map_leaves, one_line, storage_type, to_json
from icrl.support.errors import UserError

__all__ = ["RecordHistory", "RecordVectorHistory", "Recording", "save_histories"]

_FIRST_STEPS = 1024
"""Steps that a buffer has room for at first; it doubles when they are full. Memory is taken as it is written to."""


class RecordHistory(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Records the learning history of one environment.

    It changes nothing that passes through. In vector environments and loops that reset by themselves (Gymnasium's
    SyncVectorEnv and AsyncVectorEnv, Stable-Baselines3's VecEnv, TorchRL's collectors) each environment can have one
    inside, whatever the mode of the resets; then `get_attr("recording")` collects them, from other processes as well.

    Raises UserError for spaces that cannot be recorded, for values that are not of them, and for a step after an
    episode's end: Gymnasium's Autoreset, which makes a phantom step of it, goes outside.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)
        self._lived = _Lived(env.observation_space, env.action_space, 1, AutoresetMode.DISABLED)

    @property
    def recording(self) -> Recording:
        """What has happened so far, for `save_histories`; later steps leave it as it is."""
        return self._lived.recording(self.env.observation_space, self.env.action_space, self.env.spec)

    def save(self, path: str | Path) -> None:
        """Writes what has happened so far to one file, whole or not at all, for `Recording.load`."""
        self.recording.save(path)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._lived.begin(np.zeros(1, np.intp), map_leaves(_one_row, observation))
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self._lived.act(_one_row(action))
        observation, reward, terminated, truncated, info = self.env.step(action)
        flags = _one_row(terminated), _one_row(truncated)
        self._lived.observe(map_leaves(_one_row, observation), _one_row(reward), *flags)
        return observation, reward, terminated, truncated, info


class RecordVectorHistory(VectorWrapper[Any, Any, Any, Any, Any]):
    """Records the learning history of every slot of a vector environment, in all of Gymnasium's autoreset modes.

    In NEXT_STEP mode the step after an episode's end only resets, with an action that nobody carries out: it is not
    recorded, so that slots whose episodes are shorter have fewer steps. In SAME_STEP mode the observation that comes
    with an episode's end is the next one's first. In DISABLED mode `reset(options={"reset_mask": ...})` starts the
    episodes of those slots.

    Raises UserError for an environment that does not name its mode, and where `RecordHistory` does.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        mode = env.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise UserError(
                f"{env}: its metadata names no autoreset_mode (got {mode!r}), which decides what a step after an "
                'episode\'s end is: set env.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}'
            )
        self._lived = _Lived(env.single_observation_space, env.single_action_space, env.num_envs, mode)

    @property
    def recording(self) -> Recording:
        """What has happened so far, one history a slot, for `save_histories`; later steps leave it as it is."""
        return self._lived.recording(self.env.single_observation_space, self.env.single_action_space, self.env.spec)

    def save(self, path: str | Path) -> None:
        """Writes what has happened so far to one file, whole or not at all, for `Recording.load`."""
        self.recording.save(path)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        slots = np.flatnonzero(mask)  # now: environments take the mask out of the options
        observations, infos = self.env.reset(seed=seed, options=options)
        self._lived.begin(slots, observations)
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self._lived.act(actions)
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        self._lived.observe(observations, rewards, terminated, truncated)
        return observations, rewards, terminated, truncated, infos


class _Lived:
    """What has happened in the slots of an environment, in growing arrays (steps, slots, ...) of compact types.

    The observation that a slot's next step starts from stands in the row of that step already: it is copied at once,
    for environments that give the same array every time.
    """

    def __init__(self, observation_space: Space, action_space: Space, num_slots: int, mode: AutoresetMode) -> None:
        to_json(observation_space)  # raises for what cannot be recorded
        if isinstance(action_space, gymnasium.spaces.Dict | gymnasium.spaces.Tuple):
            raise UserError(f"actions of {one_line(action_space)} cannot be recorded: they have to be one array")
        self._spaces = {column_name("observation", path): space for path, space in leaves(observation_space).items()}
        self._spaces["action"] = action_space
        forms = {name: storage_type(space) for name, space in self._spaces.items()}
        forms |= {
            "reward": ((), np.dtype(np.float32)),
            **dict.fromkeys(("terminated", "truncated"), ((), np.dtype(bool))),
        }
        self._rows = {
            name: np.empty((_FIRST_STEPS, num_slots, *shape), dtype=dtype) for name, (shape, dtype) in forms.items()
        }
        self._mode = mode
        self._steps = np.zeros(num_slots, np.intp)
        self._ready = np.zeros(num_slots, np.bool_)  # has the observation that a step starts from
        self._resetting = np.zeros(num_slots, np.bool_)  # has none yet: the next step only resets, in NEXT_STEP mode

    def begin(self, slots: NDArray[np.intp], observations: Any) -> None:
        """An episode starts in `slots`; one that was running there has been cut short."""
        lived = slots[self._steps[slots] > 0]
        last = self._steps[lived] - 1, lived
        self._rows["truncated"][last] |= ~self._rows["terminated"][last]
        self._ready[slots] = True
        self._put_observations(slots, observations)

    def act(self, actions: Any) -> None:
        """A step is about to be taken with `actions`, which the environment may change."""
        if not (self._ready | self._resetting).all():
            slot = int(np.flatnonzero(~(self._ready | self._resetting))[0])
            raise UserError(
                f"step() in slot {slot} where no episode has begun, or its last has ended: call reset() first, and put "
                "wrappers that reset by themselves outside of the one that records"
            )
        self._put("action", np.flatnonzero(self._ready), actions)

    def observe(self, observations: Any, rewards: Any, terminated: Any, truncated: Any) -> None:
        """The step has been taken. What is said of slots that were reset instead counts for nothing."""
        slots = np.flatnonzero(self._ready)
        at = self._steps[slots], slots
        for name, values in (("reward", rewards), ("terminated", terminated), ("truncated", truncated)):
            self._rows[name][at] = np.asarray(values)[slots]
        ended = self._ready & (np.asarray(terminated, np.bool_) | np.asarray(truncated, np.bool_))
        self._steps[slots] += 1
        if self._steps.max() == len(self._rows["reward"]):
            self._grow()
        self._ready = np.ones_like(ended) if self._mode is AutoresetMode.SAME_STEP else ~ended
        self._resetting = ended if self._mode is AutoresetMode.NEXT_STEP else np.zeros_like(ended)
        self._put_observations(np.flatnonzero(self._ready), observations)

    def recording(self, observation_space: Space, action_space: Space, spec: Any) -> Recording:
        """The steps so far, without copying them."""
        histories = [
            {name: rows[:steps, slot] for name, rows in self._rows.items()} for slot, steps in enumerate(self._steps)
        ]
        for history in histories:
            history["truncated"] = history["truncated"].copy()  # which a reset may still change
        return Recording(observation_space, action_space, getattr(spec, "max_episode_steps", None), histories)

    def _grow(self) -> None:
        for name, rows in self._rows.items():
            self._rows[name] = np.empty((2 * len(rows), *rows.shape[1:]), rows.dtype)
            self._rows[name][: len(rows)] = rows

    def _put_observations(self, slots: NDArray[np.intp], observations: Any) -> None:
        parts = {column_name("observation", path): values for path, values in leaves(observations).items()}
        if parts.keys() != self._spaces.keys() - {"action"}:
            expected = sorted(self._spaces.keys() - {"action"})
            raise UserError(f"the environment's observation space has {expected}, but this observation {sorted(parts)}")
        for name, values in parts.items():
            self._put(name, slots, values)

    def _put(self, name: str, slots: NDArray[np.intp], values: Any) -> None:
        """Writes `values` (all slots, ...) of `slots` into their next step. Raises UserError if they do not fit."""
        rows, given = self._rows[name], np.asarray(values)
        if given.shape != rows.shape[1:]:
            raise self._misfit(name, f"of shape {given.shape} where {rows.shape[1:]} is expected, slots first")
        given = given[slots]
        stored = given.astype(rows.dtype, copy=False)
        if stored is not given and rows.dtype.kind in "iu" and (stored != given).any():
            raise self._misfit(name, f"of type {given.dtype} with values such as {given[stored != given].flat[0]}")
        rows[self._steps[slots], slots] = stored

    def _misfit(self, name: str, what: str) -> UserError:
        return UserError(f"{name}: the environment has the space {one_line(self._spaces[name])}, but this is {what}")


def _one_row(value: Any) -> NDArray[Any]:
    return np.asarray(value)[None]
