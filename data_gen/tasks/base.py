"""Tasks as data: arrays with one row per task, and the distributions that sample, split and score tasks."""

import io
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import ArrayLike, NDArray

from data_gen.spaces import one_line
from data_gen.streams import SlotStreams, derive, hashed, make_seeds
from icrl.support.arrays import read_npz
from icrl.support.errors import ConfigError, UserError
from icrl.support.files import write_file

_RANDOM_RETURN_EPISODES = 256
_RANDOM_RETURN_SLOTS = 32
_SLOTS_AT_ONCE = 2**14
_HASHED_AT_ONCE = 2**16  # words; a block of this size stays in a processor's cache
_LEAST_SPAN = 1e-9  # between random and best return, relative; sums over thousands of steps round by less
_LEAST_RETURN = 1e-12  # a difference of returns below this is rounding, even of returns near 0
_MOST_DRAWS = 16  # draws per wanted task, in a split of a family whose tasks repeat


@dataclass(frozen=True, eq=False)
class Tasks:
    """A struct of arrays with one leading task axis: `tasks["goal"]` has shape (num_tasks, ...)."""

    arrays: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The array called `name`. Raises UserError if the tasks do not have it."""
        if name not in self.arrays:
            raise UserError(
                f"the tasks have no array {name!r}: they belong to another family, with arrays {[*self.arrays]}"
            )
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def take(self, rows: ArrayLike | slice) -> "Tasks":
        """The tasks at `rows`, indices or a slice, in that order; a repeated index repeats its task."""
        index = rows if isinstance(rows, slice) else np.asarray(rows)
        return Tasks({name: array[index] for name, array in self.arrays.items()})

    def keys(self) -> NDArray[np.uint64]:
        """One opaque key per task, shape (num_tasks,).

        Equal tasks have equal keys; two different tasks have equal keys with probability 2^-64.
        """
        keys = np.zeros(len(self), dtype=np.uint64)
        for index, array in enumerate(self.arrays.values()):
            rows = np.ascontiguousarray(array).reshape(len(self), -1).view(np.uint8)
            num_words = -(-rows.shape[1] // 8)
            factors = make_seeds(num_words, index)
            block = max(1, _HASHED_AT_ONCE // num_words)
            for first in range(0, len(self), block):
                part = rows[first : first + block]
                words = np.zeros((len(part), 8 * num_words), dtype=np.uint8)
                words[:, : rows.shape[1]] = part
                keys[first : first + block] += hashed(words.view(np.uint64)) @ factors
            keys = hashed(keys)
        return keys

    def save(self, path: str | Path) -> None:
        """Writes the arrays to an .npz file without pickling."""
        buffer = io.BytesIO()
        np.savez(buffer, **self.arrays)  # type: ignore[arg-type]
        write_file(Path(path), buffer.getvalue())

    @staticmethod
    def load(path: str | Path) -> "Tasks":
        """Reads a file that `save` has written. Raises UserError if the file is missing or damaged."""
        try:
            arrays = read_npz(path)
            if any(array.dtype.kind not in "iubf" or not array.ndim for array in arrays.values()):
                raise ValueError("an array does not hold one number or more per task")
            if len({len(array) for array in arrays.values()}) != 1:
                raise ValueError("the arrays have different numbers of tasks")
            return Tasks(arrays)
        except (OSError, ValueError, EOFError, RuntimeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            why = f"{path}: is not a file of tasks ({error})"
            raise UserError(f"{why}; delete the file, and `icrl generate` writes it again") from error


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
