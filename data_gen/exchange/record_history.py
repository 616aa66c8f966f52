"""Gymnasium wrappers that record learning histories from your own training loop.

    env = RecordHistory(gymnasium.make("CartPole-v1"))
    PPO("MlpPolicy", env).learn(100_000)
    save_histories("cart_pole_data", [env])

`RecordHistory` wraps one environment. `RecordVectorHistory` wraps a vector environment and records one history per
slot. Both record the *wrapped* environment's side of a step: the observation before the step, the action that the
environment received, and the reward that it returned. The position of the wrapper therefore matters:

- Put the wrapper inside everything that changes what the learner sees (normalised observations and rewards, clipped
  rewards, stacked frames). A trained transformer interacts with the environment itself, and running means change the
  scale at every step.
- Put the wrapper outside everything that belongs to the task: a time limit, a filter of the observations, resized
  pictures.

A history contains everything after the first reset, so use another environment for evaluation. A reset in the middle of
an episode (a second `learn`, a new iteration) cuts that episode: its last step is recorded as truncated. A reset
without any step after it records nothing.

Steps are held in memory in the compact types of the shards: 23 bytes per step for CartPole, 7 kB for 84x84 pictures.
"""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from numpy.typing import NDArray

from data_gen.exchange.recording import Recording, save_histories
from data_gen.spaces import Space, column_name, leaves, map_leaves, one_line, to_json
from data_gen.values import REWARD, SpaceCheck
from icrl.support.errors import UserError

__all__ = ["RecordHistory", "RecordVectorHistory", "Recording", "save_histories"]

_FIRST_STEPS = 1024
"""Initial capacity of the buffers in steps; a full buffer doubles. Memory is only used as steps are written."""


class RecordHistory(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Records the learning history of one environment.

    Everything passes through unchanged. In vector environments and loops with their own resets (Gymnasium's
    SyncVectorEnv and AsyncVectorEnv, Stable-Baselines3's VecEnv, TorchRL's collectors), put one wrapper inside each
    environment; any reset mode works. `get_attr("recording")` then collects the recordings, also from other processes.

    Raises UserError for a space that cannot be recorded, for a value that does not fit its space, and for a step after
    the end of an episode. Put Gymnasium's Autoreset outside this wrapper: it turns that step into a reset.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)
        name = f"{type(self).__name__} of {_name(env)}"
        self._buffer = _Buffer(name, env.observation_space, env.action_space, 1, AutoresetMode.DISABLED)

    @property
    def recording(self) -> Recording:
        """The history so far, for `save_histories`. Later steps do not change the returned recording."""
        return self._buffer.recording(self.env.observation_space, self.env.action_space, self.env.spec)

    def save(self, path: str | Path) -> None:
        """Writes the history so far to one file, completely or not at all; `Recording.load` reads the file."""
        self.recording.save(path)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._buffer.begin(np.zeros(1, np.intp), map_leaves(_one_row, observation))
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self._buffer.act(_one_row(action))
        observation, reward, terminated, truncated, info = self.env.step(action)
        flags = _one_row(terminated), _one_row(truncated)
        self._buffer.observe(map_leaves(_one_row, observation), _one_row(reward), *flags)
        return observation, reward, terminated, truncated, info


class RecordVectorHistory(VectorWrapper[Any, Any, Any, Any, Any]):
    """Records the learning history of every slot of a vector environment, in all of Gymnasium's autoreset modes.

    In NEXT_STEP mode the step after an episode's end only resets and ignores its action. That step is not recorded, so
    slots with shorter episodes have fewer steps. In SAME_STEP mode the observation returned at an episode's end is the
    first one of the next episode. In DISABLED mode `reset(options={"reset_mask": ...})` starts new episodes in the
    slots of the mask.

    Raises UserError if the environment's metadata has no `autoreset_mode`, and in the cases of `RecordHistory`.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        mode = env.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise UserError(
                f"{env}: its metadata has no valid autoreset_mode (got {mode!r}), which defines the step after an "
                'episode\'s end; set env.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}'
            )
        name, spaces = f"{type(self).__name__} of {_name(env)}", (env.single_observation_space, env.single_action_space)
        self._buffer = _Buffer(name, *spaces, env.num_envs, mode)

    @property
    def recording(self) -> Recording:
        """One history per slot so far, for `save_histories`. Later steps do not change the returned recording."""
        return self._buffer.recording(self.env.single_observation_space, self.env.single_action_space, self.env.spec)

    def save(self, path: str | Path) -> None:
        """Writes the histories so far to one file, completely or not at all; `Recording.load` reads the file."""
        self.recording.save(path)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        slots = np.flatnonzero(mask)  # read first: environments remove the mask from the options
        observations, infos = self.env.reset(seed=seed, options=options)
        self._buffer.begin(slots, observations)
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self._buffer.act(actions)
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        self._buffer.observe(observations, rewards, terminated, truncated)
        return observations, rewards, terminated, truncated, infos


class _Buffer:
    """Growing arrays (steps, slots, ...) of compact types with everything that has happened in an environment's slots.

    An observation is copied at once into the row of the step that starts from it, since an environment may return the
    same array every time.
    """

    def __init__(
        self, name: str, observation_space: Space, action_space: Space, num_slots: int, mode: AutoresetMode
    ) -> None:
        self._name = name  # of the recorder, for errors
        to_json(observation_space)  # raises for a space that cannot be recorded
        if isinstance(action_space, gymnasium.spaces.Dict | gymnasium.spaces.Tuple):
            raise UserError(f"actions of {one_line(action_space)} cannot be recorded: an action has to be one array")
        self._spaces = {column_name("observation", path): space for path, space in leaves(observation_space).items()}
        self._spaces["action"] = action_space
        self._checks = {name: SpaceCheck(space) for name, space in {**self._spaces, "reward": REWARD}.items()}
        forms = {name: (check.shape, check.stored) for name, check in self._checks.items()}
        forms |= {
            **dict.fromkeys(("terminated", "truncated"), ((), np.dtype(bool))),
        }
        self._rows = {
            name: np.empty((_FIRST_STEPS, num_slots, *shape), dtype=dtype) for name, (shape, dtype) in forms.items()
        }
        self._mode = mode
        self._steps = np.zeros(num_slots, np.intp)
        self._ready = np.zeros(num_slots, np.bool_)  # True: the observation for the next step is stored
        self._resetting = np.zeros(num_slots, np.bool_)  # True: the next step only resets (NEXT_STEP mode)

    def begin(self, slots: NDArray[np.intp], observations: Any) -> None:
        """Starts an episode in each of `slots`, and truncates the episode that was running there."""
        started = slots[self._steps[slots] > 0]
        last = self._steps[started] - 1, started
        self._rows["truncated"][last] |= ~self._rows["terminated"][last]
        self._ready[slots] = True
        self._put_observations(slots, observations)

    def act(self, actions: Any) -> None:
        """Stores the actions before the step, since the environment may change the array.

        Raises UserError if a slot has no running episode.
        """
        if not (self._ready | self._resetting).all():
            slot = int(np.flatnonzero(~(self._ready | self._resetting))[0])
            raise UserError(
                f"{self._name}: step() in slot {slot}: no episode has begun, or the last one has ended; call reset() "
                "first, and put wrappers that reset automatically outside the recording wrapper"
            )
        self._put("action", np.flatnonzero(self._ready), actions)

    def observe(self, observations: Any, rewards: Any, terminated: Any, truncated: Any) -> None:
        """Stores the result of the step; ignores the slots that the step only reset."""
        slots = np.flatnonzero(self._ready)
        at = self._steps[slots], slots
        self._put("reward", slots, rewards)
        for name, values in (("terminated", terminated), ("truncated", truncated)):
            given = np.asarray(values)
            if given.shape != (len(self._steps),):
                raise self._misfit(name, slots, given.shape, ())
            flags = given[slots]
            if flags.dtype != np.bool_ and not np.isin(flags, (0, 1)).all():
                raise UserError(
                    f"{self._at(slots[:1])}: {name} {flags.tolist()[0]!r} is not a boolean; correct the environment"
                )
            self._rows[name][at] = flags
        ended = self._ready & (np.asarray(terminated, np.bool_) | np.asarray(truncated, np.bool_))
        self._steps[slots] += 1
        if self._steps.max() == len(self._rows["reward"]):
            self._grow()
        self._ready = np.ones_like(ended) if self._mode is AutoresetMode.SAME_STEP else ~ended
        self._resetting = ended if self._mode is AutoresetMode.NEXT_STEP else np.zeros_like(ended)
        # The last observation of an episode is not recorded, but the learner sees it, so it is checked as well.
        self._put_observations(np.flatnonzero(self._ready), observations, np.arange(len(ended)))

    def recording(self, observation_space: Space, action_space: Space, spec: Any) -> Recording:
        """A recording of the steps so far, mostly views of the arrays."""
        histories = [
            {name: rows[:steps, slot] for name, rows in self._rows.items()} for slot, steps in enumerate(self._steps)
        ]
        for history in histories:
            history["truncated"] = history["truncated"].copy()  # copied, since a later reset may change it
        return Recording(observation_space, action_space, getattr(spec, "max_episode_steps", None), histories)

    def _grow(self) -> None:
        for name, rows in self._rows.items():
            self._rows[name] = np.empty((2 * len(rows), *rows.shape[1:]), rows.dtype)
            self._rows[name][: len(rows)] = rows

    def _put_observations(
        self, slots: NDArray[np.intp], observations: Any, checked: NDArray[np.intp] | None = None
    ) -> None:
        parts = {column_name("observation", path): values for path, values in leaves(observations).items()}
        checked = slots if checked is None else checked
        if parts.keys() != self._spaces.keys() - {"action"}:
            expected = sorted(self._spaces.keys() - {"action"})
            what = f"the observation space has {expected}, but this observation has {sorted(parts)}"
            raise UserError(f"{self._at(checked, made=True)}: {what}; {self._advice('observation')}")
        for name, values in parts.items():
            self._put(name, slots, values, checked)

    def _put(self, name: str, slots: NDArray[np.intp], values: Any, checked: NDArray[np.intp] | None = None) -> None:
        """Writes the `values` (all slots, ...) of `slots` to their next step.

        Raises UserError if those of the slots `checked`, by default of `slots`, do not fit.
        """
        rows, given, check = self._rows[name], np.asarray(values), self._checks[name]
        checked = slots if checked is None else checked
        if given.shape != rows.shape[1:]:
            raise self._misfit(name, checked, given.shape, rows.shape[2:])
        if not check.fits(given[checked]):
            row, what = check.problem(name, given[checked])
            where = self._at(checked[row : row + 1], made=name.startswith("observation"))
            raise UserError(f"{where}: {what}; {self._advice(name)}")
        rows[self._steps[slots], slots] = given[slots]

    def _misfit(self, name: str, slots: NDArray[np.intp], given: tuple[int, ...], own: tuple[int, ...]) -> UserError:
        """The error for values of shape `given`; those of one slot should have the shape `own`."""
        num_slots = len(self._steps)
        if given[:1] == (num_slots,):
            what = f"{name} has shape {given[1:]}, expected {own}"
        else:
            what = f"{name} has shape {given} for all slots, expected {(num_slots, *own)}"
        where = self._at(slots, made=name.startswith("observation"))
        return UserError(f"{where}: {what}; {self._advice(name)}")

    def _at(self, slots: NDArray[np.intp], made: bool = False) -> str:
        """The recorder and the step of the first of `slots`: the present one, or the last one if it has been `made`."""
        slot = int(slots[0])
        where = f", slot {slot}" if len(self._steps) > 1 else ""
        step = self._steps[slot] + (not made)
        return f"{self._name}{where}, {f'step {step}' if step else 'at the reset'}"

    def _advice(self, name: str) -> str:
        if name != "action":
            return "correct the environment, or its space"
        space = self._spaces[name]
        if isinstance(space, gymnasium.spaces.Discrete) and space.start != 0:
            shift = f"TransformAction(env, lambda action: action + {space.start}, Discrete({space.n}))"
            return f"for a learner whose actions begin at 0, put gymnasium.wrappers.{shift} outside the recorder"
        return "the recorder needs the action as the environment takes it: clip or shift it outside the recorder"


def _name(env: Any) -> str:
    """The id of an environment, or else its text."""
    return str(env.spec.id if env.spec is not None else env)


def _one_row(value: Any) -> NDArray[Any]:
    return np.asarray(value)[None]
