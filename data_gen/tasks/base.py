"""Task distributions: what samples, splits and scores tasks."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from data_gen.spaces import one_line
from data_gen.streams import SlotStreams, derive, hashed, make_seeds
from data_gen.tasks.arrays import Tasks
from icrl.support.errors import ConfigError, UserError

__all__ = [
    "TaskDistribution",
    "Tasks",
    "return_span",
    "sample_actions",
    "simulated_random_estimate",
    "simulated_random_return",
]

_RANDOM_RETURN_EPISODES = 256
_RANDOM_RETURN_SLOTS = 32
_SLOTS_AT_ONCE = 2**14
_LEAST_SPAN = 1e-9  # between random and best return, relative; sums over thousands of steps round by less
_LEAST_RETURN = 1e-12  # a difference of returns below this is rounding, even of returns near 0
_MOST_DRAWS = 16  # draws per wanted task, in a split of a family whose tasks repeat


class TaskDistribution(ABC):
    """A family of tasks that share their spaces. Subclasses are components: dataclasses of their parameters.

    A subclass states what varies, defines its spaces, lists or draws its tasks, and builds the vector environment.
    Everything else follows from these; a subclass may override it where a better way is known.
    """

    episode_length: int
    """Number of steps after which an episode is truncated."""

    @property
    def varies(self) -> str:
        """The part that differs between tasks: `rewards`, `dynamics`, or `rewards and dynamics`."""
        return "rewards"

    @property
    @abstractmethod
    def observation_space(self) -> gymnasium.Space[Any]:
        """Space of one environment's observation."""

    @property
    @abstractmethod
    def action_space(self) -> gymnasium.Space[Any]:
        """Space of one environment's action."""

    @abstractmethod
    def make_vec(self, tasks: Tasks) -> VectorEnv[Any, Any, Any]:
        """A vector environment with one slot per task; slot i plays task i throughout.

        The result is a `TaskVectorEnv` or behaves like one: autoreset is SAME_STEP, and `infos["final_obs"]` holds all
        slots in one array. It may say in `infos["success"]`, (num_envs,), which of the episodes that end have succeeded
        (1, or 0, or NaN if unknown); without it, there is no success rate.
        """

    def all_tasks(self) -> Tasks | None:
        """Every task of a finite family in a fixed order; None for an unbounded family."""
        return None

    def sample(self, num_tasks: int, seed: int) -> Tasks:
        """Draws `num_tasks` tasks, possibly with repeats; a pure function of its arguments.

        By default, draws uniformly from `all_tasks`. An unbounded family overrides this method.
        """
        every = self.all_tasks()
        if every is None:
            raise TypeError(f"{type(self).__name__} has to override `all_tasks` or `sample`")
        return every.take(np.random.default_rng(seed).integers(len(every), size=num_tasks))

    def optimal_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Expected undiscounted return of an episode under the optimal policy, (num_tasks,); NaN where unknown."""
        return np.full(len(tasks), np.nan)

    def expected_rewards(self, tasks: Tasks, observation: Any, action: NDArray[Any]) -> NDArray[np.float64] | None:
        """Expected reward of every recorded step, (num_tasks, steps), without the noise; None where it is unknown.

        Regret is then counted in these rewards (pseudo-regret), else in those that came. Observations and actions are
        (num_tasks, steps, ...).
        """
        return None

    def random_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Expected undiscounted return of an episode under uniformly random actions, shape (num_tasks,).

        By default, an estimate (`random_estimate`). A family overrides this method if it knows the exact value.
        """
        if type(self).random_estimate is not TaskDistribution.random_estimate:
            return self.random_estimate(tasks)[0]
        return simulated_random_return(self, tasks, _RANDOM_RETURN_EPISODES, _RANDOM_RETURN_SLOTS)

    def random_estimate(self, tasks: Tasks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`random_return`, and its standard error: 0 where it is exact. Both have shape (num_tasks,).

        By default, an estimate from 256 simulated episodes per task, 8 in each of 32 slots, with seeds that follow from
        the task alone; or what a family's own `random_return` gives, which counts as exact. A family overrides this
        method if its simulation is slow.
        """
        if type(self).random_return is not TaskDistribution.random_return:
            return self.random_return(tasks), np.zeros(len(tasks))
        return simulated_random_estimate(self, tasks, _RANDOM_RETURN_EPISODES, _RANDOM_RETURN_SLOTS)

    def draw(self, axes: Any, task: Tasks, observation: Any, reward: NDArray[Any]) -> bool:
        """Draws one episode on one task onto matplotlib axes; returns True if the family has a picture.

        Args:
            task: a single task, as `Tasks` of length 1.
            observation: (steps, ...) the observation before each step; for a Dict or Tuple space, a mapping from each
                leaf's dotted path to its array. Without steps, the task alone is drawn.
            reward: (steps,) the reward of each step.
        """
        return False

    def comparable(self, tasks: Tasks, described: Mapping[str, Any] | None = None) -> Tasks:
        """The tasks in a form in which equal tasks have equal values, also those of another run.

        By default, the tasks themselves. A family whose tasks hold places in a list of choices overrides this method.

        Args:
            tasks: the tasks.
            described: the family that numbered them, as a file names it; by default this family. It may come from
                anywhere, so nothing in it is built or imported.
        """
        return tasks

    def split(self, train: float, test: float, seed: int) -> tuple[Tasks, Tasks]:
        """Disjoint training and held-out tasks; a pure function of the arguments.

        Args:
            train: number of training tasks; a value below 1 is a fraction of a finite family.
            test: number or fraction of held-out tasks, likewise.
            seed: decides which tasks go to which set.

        Raises ConfigError if a size is not positive, if the family has too few tasks, or if a fraction of an unbounded
        family is asked for.
        """
        if train <= 0 or test <= 0:
            raise ConfigError(f"split.train {train} and split.test {test} must be above 0")
        every = self.all_tasks()
        if every is None:
            return self._split_unbounded(train, test, seed)
        # A fraction of .2 of 81 tasks is 16, and one of .8 is the remaining 65: test rounds down, train rounds up.
        num_test = int(test) if test >= 1 else max(1, int(test * len(every) + 1e-9))
        num_train = int(train) if train >= 1 else max(1, int(np.ceil(train * len(every) - 1e-9)))
        if train < 1 and train + test <= 1:
            num_train = min(num_train, len(every) - num_test)
        if num_train + num_test > len(every):
            raise ConfigError(
                f"split.train {train} and split.test {test} ask for {num_train} + {num_test} tasks, "
                f"but {type(self).__name__} has {len(every)}: lower one of them"
            )
        order = np.random.default_rng((seed, len(every))).permutation(len(every))
        return every.take(order[:num_train]), every.take(order[num_train : num_train + num_test])

    def _split_unbounded(self, train: float, test: float, seed: int) -> tuple[Tasks, Tasks]:
        """`split` of an unbounded family: draws tasks, and more of them if too few are distinct."""
        if train < 1 or test < 1:
            raise ConfigError(
                f"split.train {train} and split.test {test}: {type(self).__name__} is unbounded, so a fraction of "
                "its tasks is undefined; give numbers of tasks"
            )
        wanted = int(train) + int(test)
        drawn = self.sample(wanted, seed)
        first = np.sort(np.unique(drawn.keys(), return_index=True)[1])
        if len(first) < wanted:  # a family whose tasks repeat, such as a range of integers
            drawn = self.sample(_MOST_DRAWS * wanted, seed)
            first = np.sort(np.unique(drawn.keys(), return_index=True)[1])[:wanted]
        if len(first) < wanted:
            name, draws = type(self).__name__, _MOST_DRAWS * wanted
            raise ConfigError(
                f"split.train {train} and split.test {test}: {name} gave only {len(first)} distinct tasks of the "
                f"{wanted} asked for, in {draws} draws: lower one of them"
            )
        if len(first) == len(drawn):  # all are distinct: slices avoid a copy of large arrays
            return drawn.take(slice(int(train))), drawn.take(slice(int(train), None))
        return drawn.take(first[: int(train)]), drawn.take(first[int(train) :])

    def more_tasks(self, train: Tasks, test: Tasks, count: int, seed: int) -> Tasks:
        """Up to `count` distinct tasks that are like the training tasks and in neither set: validation tasks.

        By default, the tasks of a finite family that are left over, in an order that follows from `seed`, and new draws
        from an unbounded one. A family with a `split` of its own may have held-out tasks of another kind, so its
        validation tasks are training tasks of other splits.
        """
        own_kind = type(self).split is not TaskDistribution.split
        candidates = self._of_other_splits if own_kind else self._unused
        return self._first_new(candidates(len(train), len(test), count, seed), train, test, count)

    def _first_new(self, candidates: Iterator[Tasks], train: Tasks, test: Tasks, count: int) -> Tasks:
        """The first `count` distinct tasks of the first of `candidates` that has so many beside both sets."""
        found = train.take(slice(0))
        for drawn in candidates:
            new = ~(_equal(self, drawn, train) | _equal(self, drawn, test))
            first = np.sort(np.unique(drawn.keys(), return_index=True)[1])  # a task may be drawn twice
            found = drawn.take(first[new[first]][:count])
            if len(found) == count:
                break
        return found

    def _unused(self, num_train: int, num_test: int, count: int, seed: int) -> Iterator[Tasks]:
        """Candidates for `more_tasks`: all tasks, or draws: few, then as many as are needed if most are in use."""
        every = self.all_tasks()
        if every is not None:
            yield every.take(np.random.default_rng(seed).permutation(len(every)))
            return
        yield self.sample(count, seed)
        yield self.sample(_MOST_DRAWS * (count + num_train + num_test), seed)

    def _of_other_splits(self, num_train: int, num_test: int, count: int, seed: int) -> Iterator[Tasks]:
        """Candidates for `more_tasks`: the training tasks of larger and larger splits, while the family has them."""
        for more in (0, num_train, num_train + num_test):
            try:
                yield self.split(count + more, 1, seed)[0]
            except (UserError, ValueError, IndexError):  # the method may be a user's
                return

    def among(self, tasks: Tasks, others: Tasks) -> NDArray[np.bool_]:
        """True for each of `tasks` that is one of `others`, by value, shape (num_tasks,).

        A family in which two different values can be one and the same task overrides this method.
        """
        return _equal(self, tasks, others)

    def normalise(self, returns: NDArray[np.floating], tasks: Tasks) -> NDArray[np.float64]:
        """Rescales returns, (num_tasks, ...), so that random is 0 and optimal is 1.

        The result is NaN where the optimum is unknown, or not above random (`return_span`).
        """
        _, first, inverse = np.unique(tasks.keys(), return_index=True, return_inverse=True)
        distinct = tasks.take(first)
        optimal = self.optimal_return(distinct)[inverse]
        if np.isnan(optimal).all():  # the random policy need not be simulated
            return np.full(np.shape(returns), np.nan)
        random = self.random_return(distinct)[inverse]
        shape = (len(tasks),) + (1,) * (np.ndim(returns) - 1)
        return (returns - random.reshape(shape)) / return_span(random, optimal).reshape(shape)


def _equal(family: TaskDistribution, tasks: Tasks, others: Tasks) -> NDArray[np.bool_]:
    """True for each of `tasks` with the values of one of `others`, shape (num_tasks,)."""
    return np.isin(family.comparable(tasks).keys(), family.comparable(others).keys())


def return_span(random: NDArray[np.float64], best: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance from 0 to 1 on the scale of normalised returns, in return; NaN where no scale is known.

    No scale is known if the best return is unknown, infinite, or not above the random one by more than rounding.
    """
    with np.errstate(invalid="ignore"):
        span = best - random
        noise = np.maximum(_LEAST_SPAN * np.maximum(np.abs(best), np.abs(random)), _LEAST_RETURN)
        return np.where(np.isfinite(span) & (span > noise), span, np.nan)


def simulated_random_return(
    distribution: TaskDistribution,
    tasks: Tasks,
    episodes: int,
    slots_per_task: int,
    slots_at_once: int = _SLOTS_AT_ONCE,
) -> NDArray[np.float64]:
    """Mean return of uniformly random actions, shape (num_tasks,): the first part of `simulated_random_estimate`."""
    return simulated_random_estimate(distribution, tasks, episodes, slots_per_task, slots_at_once)[0]


def simulated_random_estimate(
    distribution: TaskDistribution,
    tasks: Tasks,
    episodes: int,
    slots_per_task: int,
    slots_at_once: int = _SLOTS_AT_ONCE,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean return of uniformly random actions over `episodes` episodes per task, and its standard error.

    Both have shape (num_tasks,). Each task runs in `slots_per_task` slots. Seeds follow from the task's own value,
    so that the other tasks and its place among them change nothing. `slots_at_once` bounds the slots at any one time,
    and so the memory.
    """
    means, squares, block = [], [], max(1, slots_at_once // slots_per_task)
    each = episodes // slots_per_task
    for first in range(0, len(tasks), block):
        part = tasks.take(slice(first, first + block))
        envs = distribution.make_vec(part.take(np.repeat(np.arange(len(part)), slots_per_task)))
        seeds = hashed(part.keys()[:, None] + make_seeds(slots_per_task, episodes)).ravel()
        streams = SlotStreams(derive(seeds, 1))
        total, ended = np.zeros(envs.num_envs), np.zeros(envs.num_envs)
        begun, square = np.zeros(envs.num_envs), np.zeros(envs.num_envs)  # total when the episode began; of each return
        envs.reset(seed=seeds)  # type: ignore[arg-type]
        while (ended < each).any():
            _, rewards, terminated, truncated, _ = envs.step(sample_actions(distribution.action_space, streams))
            # Each slot counts its first episodes. In a fixed number of steps, short episodes would be over-represented.
            counted = ended < each
            total += rewards * counted
            over = terminated | truncated
            square[over] += np.square(total - begun)[over]
            begun[over] = total[over]
            ended += over
        envs.close()
        means.append(total.reshape(len(part), slots_per_task).sum(axis=1) / episodes)
        squares.append(square.reshape(len(part), slots_per_task).sum(axis=1) / episodes)
    mean = np.concatenate(means)
    variance = np.maximum(np.concatenate(squares) - np.square(mean), 0)
    return mean, np.sqrt(variance / max(1, episodes - 1))


def sample_actions(space: gymnasium.Space[Any], streams: SlotStreams) -> NDArray[Any]:
    """One uniformly random action per slot, (num_slots, ...). Raises UserError for an unbounded or unknown space."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return space.start + (streams.uniform() * space.n).astype(np.int64)
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return space.start + (streams.uniform(*space.nvec.shape) * space.nvec).astype(np.int64)
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return (streams.uniform(*space.shape) * 2).astype(space.dtype)
    if isinstance(space, gymnasium.spaces.Box) and space.is_bounded():
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        return (low + streams.uniform(*space.shape) * (high - low)).astype(space.dtype)
    raise UserError(f"cannot draw uniformly random actions from the action space {one_line(space)}")
