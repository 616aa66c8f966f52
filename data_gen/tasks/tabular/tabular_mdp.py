"""Random tabular MDPs: both the rewards and the transitions are unknown and have to be learned."""

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.tasks.vector import TaskVectorEnv
from icrl.config.components import component
from icrl.support.errors import UserError

_TRANSITIONS_AT_ONCE = 2**16  # probabilities per array operation; so many stay in a processor's cache
_SUM_TOLERANCE = 1e-3  # of a row of probabilities; float32 sums of a thousand terms have a smaller error


_MOST_PROBABILITIES = 2**24
"""Most transition probabilities of a task: 128 MiB."""


@component
class TabularMDP(TaskDistribution):
    """Random tabular MDPs (Duan et al. 2016, "RL^2: Fast Reinforcement Learning via Slow Reinforcement Learning", 3.2).

    The prior is that of Osband et al. 2013, "(More) Efficient Reinforcement Learning via Posterior Sampling".

    ## Description
    `states` states and `actions` actions. For every state and action, a task has a mean reward and a distribution over
    next states. The mean reward is normal with mean `reward_mean` and standard deviation `reward_std`. The distribution
    is drawn from a symmetric Dirichlet distribution with parameter `concentration`. Rewards and dynamics vary.

    ## Action Space
    `Discrete(actions)`.

    ## Observation Space
    `Discrete(states)`: the state.

    ## Starting State
    State 0.

    ## Rewards
    Normal about the mean of the state and the action taken in it, with standard deviation `noise`.

    ## Episode End
    Truncation after `episode_length` steps. The optimal policy depends on the number of steps left, which is not
    observed.

    ## Arguments
    `states`, `actions`, `episode_length`, `reward_mean`, `reward_std`, `noise`, `concentration`. The defaults are the
    paper's. A concentration below 1 makes transitions nearly deterministic; one far above 1 makes them all alike.
    """

    states: Annotated[int, Field(ge=2)] = 10
    actions: Annotated[int, Field(ge=2)] = 5
    episode_length: Annotated[int, Field(ge=1)] = 10
    reward_mean: Annotated[float, Field(ge=-1e9, le=1e9)] = 1.0
    reward_std: Annotated[float, Field(gt=0, le=1e9)] = 1.0
    noise: Annotated[float, Field(ge=0, le=1e9)] = 1.0
    concentration: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0

    def __post_init__(self) -> None:
        if self.states**2 * self.actions > _MOST_PROBABILITIES:
            raise ValueError(
                f"states {self.states} and actions {self.actions}: a task has states^2 x actions transition "
                f"probabilities, the limit is {_MOST_PROBABILITIES:,}"
            )

    @property
    def varies(self) -> str:
        return "rewards and dynamics"

    @property
    def observation_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(self.states)

    @property
    def action_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(self.actions)

    def make_vec(self, tasks: Tasks) -> "TabularMDPVectorEnv":
        return TabularMDPVectorEnv(self, tasks)

    def sample(self, num_tasks: int, seed: int) -> Tasks:
        """Draws tasks with two float32 arrays.

        `transition` has shape (num_tasks, states, actions, states), and `reward` (num_tasks, states, actions).
        """
        rng = np.random.default_rng(seed)
        table = (num_tasks, self.states, self.actions)
        reward = self.reward_mean + self.reward_std * rng.standard_normal(table, dtype=np.float32)
        transition = np.empty((*table, self.states), dtype=np.float32)
        for part in self._parts(num_tasks):
            weights = self._gamma_weights(rng, transition[part].shape)
            np.divide(weights, weights.sum(axis=-1, keepdims=True), out=transition[part])
        return Tasks({"transition": transition, "reward": reward})

    def _gamma_weights(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Draws variables of `shape` that are Dirichlet once divided by their sum over the last axis."""
        if self.concentration >= 1:
            if self.concentration == 1:  # Gamma(1), three times as fast
                return rng.standard_exponential(shape, dtype=np.float32)
            return rng.standard_gamma(self.concentration, shape, dtype=np.float32)
        # For small c, Gamma(c) is often 0 in float32, so its logarithm is drawn and the largest of a row scaled to 1.
        # Gamma(c) is Gamma(c + 1) times U^(1 / c), with U uniform and -log U exponential (Marsaglia and Tsang 2000).
        logarithm = np.log(rng.standard_gamma(self.concentration + 1, shape, dtype=np.float32))
        logarithm -= rng.standard_exponential(shape, dtype=np.float32) / np.float32(self.concentration)
        return np.exp(logarithm - logarithm.max(axis=-1, keepdims=True))

    def optimal_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Exact, by value iteration over the episode's steps."""
        optimal = np.empty(len(tasks))
        for part in self._parts(len(tasks)):
            for values in self._action_values(tasks.take(part)):
                optimal[part] = values[:, 0].max(axis=1)
        return optimal

    def optimal_actions(self, tasks: Tasks) -> NDArray[np.unsignedinteger[Any]]:
        """An optimal action after every number of steps in every state, (num_tasks, episode_length, states)."""
        kind = np.min_scalar_type(self.actions - 1)
        actions = np.empty((len(tasks), self.episode_length, self.states), dtype=kind)
        for part in self._parts(len(tasks)):
            for left, values in enumerate(self._action_values(tasks.take(part)), start=1):
                actions[part, self.episode_length - left] = values.argmax(axis=2)
        return actions

    def _action_values(self, tasks: Tasks) -> Iterator[NDArray[np.float64]]:
        """Yields the optimal action values with 1, 2, ... `episode_length` steps left, (num_tasks, states, actions).

        An action's value is its expected return when all actions after it are optimal.
        """
        transition, reward = tasks["transition"].astype(np.float64), tasks["reward"].astype(np.float64)
        value = np.zeros((len(tasks), self.states))
        for _ in range(self.episode_length):
            action_values = reward + np.einsum("nsaz,nz->nsa", transition, value)
            yield action_values
            value = action_values.max(axis=2)

    def random_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Exact: follows the distribution over states under uniformly random actions, step by step."""
        expected = np.zeros(len(tasks))
        for part in self._parts(len(tasks)):
            transition = tasks["transition"][part].mean(axis=2, dtype=np.float64)
            reward = tasks["reward"][part].mean(axis=2, dtype=np.float64)
            occupancy = np.zeros(reward.shape)
            occupancy[:, 0] = 1
            for _ in range(self.episode_length):
                expected[part] += (occupancy * reward).sum(axis=1)
                occupancy = np.einsum("ns,nsz->nz", occupancy, transition)
        return expected

    def expected_rewards(self, tasks: Tasks, observation: NDArray[Any], action: NDArray[Any]) -> NDArray[np.float64]:
        """The mean reward of each step's state and action."""
        pair = observation.astype(np.int64) * self.actions + action
        rewards = tasks["reward"].reshape(len(tasks), -1)
        return np.take_along_axis(rewards, pair, axis=1).astype(np.float64)

    def _parts(self, num_tasks: int) -> Iterator[slice]:
        """Slices of the tasks with about `_TRANSITIONS_AT_ONCE` probabilities each, which bound the memory."""
        size = max(1, _TRANSITIONS_AT_ONCE // (self.states**2 * self.actions))
        return (slice(first, min(first + size, num_tasks)) for first in range(0, num_tasks, size))

    def draw(self, axes: Any, task: Tasks, observation: NDArray[Any], reward: NDArray[Any]) -> bool:
        """Draws mean rewards by state and action, dots on an episode's first optimal actions and, below, its states."""
        mean = task["reward"][0]
        axes.imshow(mean.T, cmap="Greys", aspect="auto", extent=(-0.5, self.states - 0.5, self.actions - 0.5, -0.5))
        axes.plot(np.arange(self.states), self.optimal_actions(task)[0, 0], "o", color="#f59e0b", markersize=4)
        bottom = self.actions - 0.5
        if len(observation):  # the steps from top to bottom, over the height of the table
            down = bottom + self.actions * (np.arange(len(observation)) + 0.5) / len(observation)
            axes.plot(observation, down, ".-", color="#2563eb", linewidth=1.2, markersize=4, alpha=0.8)
            axes.plot(observation[0], down[0], "o", color="#111827", markersize=4)
            bottom += self.actions
        axes.set(xticks=[0, self.states - 1], yticks=[0, self.actions - 1], ylim=(bottom, -0.5))
        axes.set(xlim=(-0.5, self.states - 0.5))
        axes.tick_params(labelsize=7, length=2)
        return True


class TabularMDPVectorEnv(TaskVectorEnv):
    """MDPs with their own tables in every slot; a step looks up one row of cumulative probabilities."""

    def __init__(self, mdp: TabularMDP, tasks: Tasks) -> None:
        super().__init__(len(tasks), mdp.observation_space, mdp.action_space, mdp.episode_length)
        self._mdp, self._tasks = mdp, tasks
        self._check()
        rows = tasks["transition"].reshape(-1, mdp.states)
        cumulative = np.cumsum(rows, axis=1, dtype=np.float32)
        cumulative /= cumulative[:, -1:]
        cumulative[cumulative >= 1] = np.inf  # so that rounding never leads past the last state with a probability
        self._cumulative, self._reward = cumulative, tasks["reward"].ravel()
        self._num_actions, self._noise = mdp.actions, mdp.noise
        self._first_row = np.arange(self.num_envs) * mdp.states
        self._state = np.zeros(self.num_envs, dtype=np.int64)

    def _check(self) -> None:
        mdp, transition, reward = self._mdp, self._tasks["transition"], self._tasks["reward"]
        table = (mdp.states, mdp.actions)
        if transition.shape[1:] != (*table, mdp.states) or reward.shape[1:] != table:
            raise UserError(
                f"a task's transition and reward have shapes {transition.shape[1:]} and {reward.shape[1:]}, "
                f"but {mdp.states} states and {mdp.actions} actions need {(*table, mdp.states)} and {table}"
            )
        if not np.isfinite(reward).all():
            raise UserError("a task's reward is not finite")
        if not ((transition >= 0).all() and (abs(transition.sum(axis=-1) - 1) < _SUM_TOLERANCE).all()):
            raise UserError("a task's transition has a row that is not a probability distribution over next states")

    def _restart(self, slots: NDArray[np.intp]) -> None:
        self._state[slots] = 0

    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        row = (self._first_row + self._state) * self._num_actions + actions
        rewards = self._reward.take(row) + self._noise * self.streams.normal()
        uniform = self.streams.uniform().astype(np.float32)
        # The next state is the first whose cumulative probability is above the uniform number.
        self._state = (self._cumulative.take(row, axis=0) > uniform[:, None]).argmax(axis=1)
        return rewards.astype(np.float32), np.zeros(self.num_envs, dtype=np.bool_)

    def _observe(self) -> NDArray[np.int64]:
        return self._state.copy()

    @cached_property
    def _optimal_actions(self) -> NDArray[np.unsignedinteger[Any]]:
        """Optimal actions, flat over (slot, step, state); computed on first use, since most agents never need them."""
        return self._mdp.optimal_actions(self._tasks).ravel()

    def optimal_action(self) -> NDArray[np.int64]:
        """The best action for the number of steps left in each slot, by value iteration."""
        slot_and_step = np.arange(self.num_envs) * self.episode_length + self.elapsed
        return self._optimal_actions.take(slot_and_step * self._mdp.states + self._state).astype(np.int64)
