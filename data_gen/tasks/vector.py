"""A vector environment in which each slot plays its own task, and the scalar form of the same dynamics."""

from abc import abstractmethod
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from data_gen.spaces import map_leaves
from data_gen.streams import Seeds, SlotStreams, make_seeds, slot_seeds
from data_gen.values import is_ours


class TaskVectorEnv(VectorEnv[Any, Any, Any]):
    """Base of the natively vectorised families: a subclass gives the dynamics as array operations over all slots.

    This class manages the episodes: time limits, SAME_STEP autoreset (Gymnasium's default NEXT_STEP would put a phantom
    step with an ignored action into every history), final observations, and one random stream per slot.

    `infos` has entries only when at least one slot ends its episode. `infos["final_obs"]` holds the observations before
    any reset for *all* slots, shape (num_envs, ...). `infos["_final_obs"]` marks the slots that ended.
    `infos["final_state"]` is the counterpart of the final observation for `state()`.

    A family that knows what success is, such as reaching the goal, calls `_succeed` in `_advance`. At the end
    of an episode, `infos["success"]`, shape (num_envs,), then says if it has succeeded, for the figure `success_rate`.

    A family that knows its optimal policy also has a method `optimal_action()`: an optimal action in the present state
    of every slot, hidden parts included, shape (num_envs, ...). A family whose observation hides more than the task
    (such as whether the key is held) overrides `state` and `single_state_space`. A source can then learn from the state
    what a transformer has to infer from its context.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        episode_length: int,
    ) -> None:
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.episode_length = episode_length
        self.elapsed = np.zeros(num_envs, dtype=np.int64)
        self.success: NDArray[np.bool_] | None = None  # of the running episodes; None if the family does not say
        self.streams = SlotStreams(make_seeds(num_envs, np.random.SeedSequence().generate_state(1)[0]))

    @property
    def native(self) -> bool:
        """True if the values need no check at every step: for the classes of this project, which its tests check."""
        return is_ours(type(self))

    @abstractmethod
    def _restart(self, slots: NDArray[np.intp]) -> None:
        """Puts `slots`, an index array, at the start of an episode; draws from the streams of those slots only."""

    @abstractmethod
    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Takes one step in every slot; returns rewards and termination flags, both (num_envs,)."""

    @abstractmethod
    def _observe(self) -> Any:
        """The current observations, shape (num_envs, ...), in arrays that later steps do not change."""

    def _succeed(self, achieved: NDArray[np.bool_]) -> None:
        """Marks the running episodes in which this step achieves what the task asks for; `achieved` is (num_envs,)."""
        if self.success is None:
            self.success = np.zeros(self.num_envs, dtype=np.bool_)
        self.success |= achieved

    @property
    def single_state_space(self) -> gymnasium.Space[Any]:
        """Space of one slot's `state()`."""
        return self.single_observation_space

    def state(self) -> Any:
        """Everything about an episode that matters for acting in it, except the task; by default the observation."""
        return self._observe()

    def reset(
        self, *, seed: int | list[int] | Seeds | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode in every slot.

        `seed` is one seed per slot, or one integer from which slot i gets `seed + i`; None continues the present
        streams. With the same seed, a slot and the scalar form give the same trajectory.
        """
        if seed is not None:
            self.streams = SlotStreams(slot_seeds(self.num_envs, seed))
        self.elapsed[:] = 0
        if self.success is not None:
            self.success[:] = False
        self._restart(np.arange(self.num_envs))
        return self._observe(), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Any, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Takes one step in every slot; slots whose episode ends are reset in the same step."""
        rewards, terminated = self._advance(np.asarray(actions))
        observations = self._observe()
        self.elapsed += 1
        truncated = (self.elapsed >= self.episode_length) & ~terminated
        ended = terminated | truncated
        if not ended.any():
            return observations, rewards, terminated, truncated, {}
        slots = np.flatnonzero(ended)
        infos = {"final_obs": observations, "_final_obs": ended, "final_state": self.state()}
        if self.success is not None:
            infos["success"] = self.success.copy()
            self.success[slots] = False
        self.elapsed[slots] = 0
        self._restart(slots)
        return self._observe(), rewards, terminated, truncated, infos


class TaskEnv(gymnasium.Env[Any, Any]):
    """The scalar form of a family: one slot of its vector environment, without autoreset."""

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        self._envs = envs
        self.observation_space, self.action_space = envs.single_observation_space, envs.single_action_space
        self._following: Any = None  # first observation of the episode that an autoreset has begun

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; without a seed, the one that the autoreset of the vector environment has already begun."""
        super().reset(seed=seed)
        following, self._following = self._following, None
        if seed is None and following is not None:
            return following, {}
        observations, _ = self._envs.reset(seed=None if seed is None else [seed])  # type: ignore[arg-type]
        return self._first(observations), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes one step; the last observation of an episode is the one before the autoreset."""
        observations, rewards, terminated, truncated, infos = self._envs.step(np.asarray(action)[None])
        observation = self._first(infos.get("final_obs", observations))
        self._following = self._first(observations) if infos else None
        return observation, float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}

    def close(self) -> None:
        self._envs.close()

    def _first(self, observations: Any) -> Any:
        return map_leaves(lambda values: values[0], observations)
