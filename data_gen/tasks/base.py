"""Tasks are data: a task is a row of a struct of arrays, and a distribution knows how to draw, split and play them."""

import io
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import ArrayLike, NDArray

from data_gen.streams import SlotStreams, derive, hashed, make_seeds
from icrl.support.errors import ConfigError, UserError
from icrl.support.files import write_file

_RANDOM_RETURN_EPISODES = 256
_RANDOM_RETURN_SLOTS = 32
_SLOTS_AT_ONCE = 2**14
_HASHED_AT_ONCE = 2**16  # words; what stays in a processor's cache
_MOST_DRAWS = 16  # a task, in a split of a family whose tasks repeat


@dataclass(frozen=True, eq=False)
class Tasks:
    """A struct of arrays with one leading task axis: `tasks["goal"]` has shape (num_tasks, ...)."""

    arrays: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The array `name`. Raises UserError if these tasks have none."""
        if name not in self.arrays:
            raise UserError(
                f"these tasks have no array {name!r}, they are of another family: they have {[*self.arrays]}"
            )
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def take(self, rows: ArrayLike | slice) -> "Tasks":
        """The tasks at `rows`, in that order, repeated where a row is."""
        index = rows if isinstance(rows, slice) else np.asarray(rows)
        return Tasks({name: array[index] for name, array in self.arrays.items()})

    def keys(self) -> NDArray[np.uint64]:
        """One opaque value a task, shape (num_tasks,): equal for equal tasks, and else equal once in 2^64 pairs."""
        keys = np.zeros(len(self), dtype=np.uint64)
        for place, array in enumerate(self.arrays.values()):
            rows = np.ascontiguousarray(array).reshape(len(self), -1).view(np.uint8)
            num_words = -(-rows.shape[1] // 8)
            weights = make_seeds(num_words, place)
            block = max(1, _HASHED_AT_ONCE // num_words)
            for first in range(0, len(self), block):
                part = rows[first : first + block]
                words = np.zeros((len(part), 8 * num_words), dtype=np.uint8)
                words[:, : rows.shape[1]] = part
                keys[first : first + block] += hashed(words.view(np.uint64)) @ weights
            keys = hashed(keys)
        return keys

    def save(self, path: str | Path) -> None:
        """Writes the arrays to an .npz file; nothing is pickled."""
        buffer = io.BytesIO()
        np.savez(buffer, **self.arrays)  # type: ignore[arg-type]
        write_file(Path(path), buffer.getvalue())

    @staticmethod
    def load(path: str | Path) -> "Tasks":
        """Reads what `save` wrote. Raises UserError if the file is missing or damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                return Tasks({name: file[name] for name in file.files})
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            why = f"{path}: is not a file of tasks ({error})"
            raise UserError(f"{why}; delete it, and `icrl generate` makes it again") from error


class TaskDistribution(ABC):
    """A family of tasks that share their spaces. Subclasses are components: dataclasses of their parameters.

    A subclass says what varies, gives its spaces, names or draws its tasks, and builds the vector environment.
    Everything else here follows from that, and can be overridden where the family knows better.
    """

    episode_length: int
    """Steps after which an episode is truncated."""

    @property
    def varies(self) -> str:
        """What differs between tasks: `rewards`, `dynamics`, or `rewards and dynamics`."""
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
        """A vector environment with one slot a task; slot i plays `tasks.take(i)` for as long as it lives.

        In SAME_STEP mode, with `infos["final_obs"]` for all slots in one array: a `TaskVectorEnv`, or one like it.
        """

    def all_tasks(self) -> Tasks | None:
        """Every task of a finite family in a fixed order; None where there is no end of them."""
        return None

    def sample(self, num_tasks: int, seed: int) -> Tasks:
        """Draws `num_tasks` tasks, repeats possible; a pure function of its arguments.

        Here uniformly from `all_tasks`; a family without end overrides this.
        """
        every = self.all_tasks()
        if every is None:
            raise TypeError(f"{type(self).__name__} has to override `all_tasks` or `sample`")
        return every.take(np.random.default_rng(seed).integers(len(every), size=num_tasks))

    def optimal_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Expected undiscounted return of an episode under the optimal policy, (num_tasks,); NaN where not known."""
        return np.full(len(tasks), np.nan)

    def random_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """Expected undiscounted return of an episode under uniformly random actions, shape (num_tasks,).

        Here an estimate from 256 simulated episodes a task with fixed seeds, 8 in each of 32 slots; families that know
        it, or where that takes long, override this.
        """
        return simulated_random_return(self, tasks, _RANDOM_RETURN_EPISODES, _RANDOM_RETURN_SLOTS)

    def draw(self, axes: Any, task: Tasks, observation: Any, reward: NDArray[Any]) -> bool:
        """Draws one episode on one task onto matplotlib axes; returns whether this family has a picture at all.

        Args:
            task: the task, as one row.
            observation: (steps, ...) what was seen before each step, of a Dict or Tuple space by each leaf's dotted
                path; may be empty, for the task alone.
            reward: (steps,) what each step earned.
        """
        return False

    def split(self, train: float, test: float, seed: int) -> tuple[Tasks, Tasks]:
        """Disjoint training and held-out tasks, a pure function of the arguments.

        Args:
            train: number of training tasks; below 1, a share of a finite family.
            test: the same for the held-out tasks.
            seed: decides which task goes where.

        Raises ConfigError if the family has not got so many tasks.
        """
        if train <= 0 or test <= 0:
            raise ConfigError(f"split.train {train} and split.test {test} have to be above 0")
        every = self.all_tasks()
        if every is None:
            return self._split_unbounded(train, test, seed)
        # A share of .2 of 81 tasks is 16 and one of .8 is the 65 that are left: test rounds down, train up.
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
        if train < 1 or test < 1:
            raise ConfigError(
                f"split.train {train} and split.test {test}: {type(self).__name__} has no last task to take a share "
                "of; give numbers of tasks"
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
                f"split.train {train} and split.test {test}: {name} gave only {len(first)} different tasks of {wanted} "
                f"in {draws} draws: lower one of them"
            )
        if len(first) == len(drawn):  # no copy of what may be large
            return drawn.take(slice(int(train))), drawn.take(slice(int(train), None))
        return drawn.take(first[: int(train)]), drawn.take(first[int(train) :])

    def normalise(self, returns: NDArray[np.floating], tasks: Tasks) -> NDArray[np.float64]:
        """Returns of shape (num_tasks, ...) on the scale where random is 0 and optimal is 1; NaN where not known."""
        _, first, place = np.unique(tasks.keys(), return_index=True, return_inverse=True)
        distinct = tasks.take(first)
        optimal = self.optimal_return(distinct)[place]
        if np.isnan(optimal).all():  # then no need to simulate the random policy
            return np.full(np.shape(returns), np.nan)
        random = self.random_return(distinct)[place]
        shape = (len(tasks),) + (1,) * (np.ndim(returns) - 1)
        return (returns - random.reshape(shape)) / (optimal - random).reshape(shape)


def simulated_random_return(
    distribution: TaskDistribution,
    tasks: Tasks,
    episodes: int,
    slots_per_task: int,
    slots_at_once: int = _SLOTS_AT_ONCE,
) -> NDArray[np.float64]:
    """Mean return of uniformly random actions over `episodes` episodes a task, in `slots_per_task` slots each; (num_tasks,).

    `slots_at_once` bounds the memory that many tasks take.
    """
    means, block = [], max(1, slots_at_once // slots_per_task)
    for first in range(0, len(tasks), block):
        part = tasks.take(slice(first, first + block))
        envs = distribution.make_vec(part.take(np.repeat(np.arange(len(part)), slots_per_task)))
        seeds = make_seeds(envs.num_envs, episodes, first)
        streams = SlotStreams(derive(seeds, 1))
        total, ended = np.zeros(envs.num_envs), np.zeros(envs.num_envs)
        envs.reset(seed=seeds)  # type: ignore[arg-type]
        while (ended < episodes // slots_per_task).any():
            _, rewards, terminated, truncated, _ = envs.step(sample_actions(distribution.action_space, streams))
            counted = (
                ended < episodes // slots_per_task
            )  # the first ones: of a fixed time, short ones would be a greater part
            total += rewards * counted
            ended += terminated | truncated
        envs.close()
        means.append(total.reshape(len(part), slots_per_task).sum(axis=1) / episodes)
    return np.concatenate(means)


def sample_actions(space: gymnasium.Space[Any], streams: SlotStreams) -> NDArray[Any]:
    """One uniformly random action a slot, shape (num_slots, ...). Raises UserError for an unbounded space."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return space.start + (streams.uniform() * space.n).astype(np.int64)
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return space.start + (streams.uniform(*space.nvec.shape) * space.nvec).astype(np.int64)
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return (streams.uniform(*space.shape) * 2).astype(space.dtype)
    if isinstance(space, gymnasium.spaces.Box) and space.is_bounded():
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        return (low + streams.uniform(*space.shape) * (high - low)).astype(space.dtype)
    raise UserError(f"no uniformly random actions for the action space {space}")
