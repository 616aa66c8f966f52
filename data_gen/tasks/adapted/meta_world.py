"""Meta-World's meta-learning benchmarks: a robot arm that has to learn its task from the rewards."""

import functools
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import Field

from data_gen.tasks.adapted.block import made
from data_gen.tasks.adapted.process_vector import SLOTS_AT_ONCE, ExpertProcessVectorEnv
from data_gen.tasks.base import TaskDistribution, Tasks, simulated_random_estimate
from icrl.config.components import component
from icrl.support.errors import ConfigError, UserError, did_you_mean

_WELD_FIELDS = 11
"""Number of a weld's fields that Meta-World 3.1 sets: anchor, relative pose and torque scale, all fields of MuJoCo 3.
"""

_RANDOM_RETURN_EPISODES = 4
"""Episodes per task: one is 500 steps at a few thousand per second, and random actions hardly move the arm."""


@component
class MetaWorld(TaskDistribution):
    """Meta-World (Yu et al. 2020, "Meta-World: A Benchmark and Evaluation for Multi-Task and Meta RL"), version 3.

    ## Description
    A simulated Sawyer arm has to reach, push, open, press and so on. A task is a kind of environment and a goal (and,
    for most kinds, the objects' initial positions). None of these is observed. Training tasks are the training tasks of
    the benchmark's own object, and held-out tasks are its test tasks:

    - `ML1`: one kind, `env`; 50 goals for training and 50 others for testing.
    - `ML10`: 10 kinds for training and 5 other kinds for testing, 50 goals each.
    - `ML45`: 45 and 5.

    (`gymnasium.make_vec("Meta-World/ML1-train")` of Meta-World 3.1.1 serves test tasks: its entry points are lambdas
    that all read the last value of a loop's variable.) `split.train` and `split.test` are numbers of tasks of the two
    sets, or fractions of each, spread over the kinds as evenly as possible.

    ## Action Space
    `Box(-1, 1, (4,))`: the hand's move along x, y and z, and the gripper's force.

    ## Observation Space
    `Box((39,))`: the hand's position and opening, the positions and orientations of up to two objects, the same values
    of the previous step, and three zeros in place of the goal.

    ## Starting State
    The task's, always the same.

    ## Rewards
    Meta-World's dense reward, 0 to 10 per step, 10 once the task is solved.

    ## Episode End
    Truncation after `episode_length` steps; the benchmark uses 500.

    ## Arguments
    `benchmark`, `env` (the kind of ML1, by default reach-v3), `goals_seed` (decides which goals the benchmark draws),
    `episode_length`.

    A slot takes about 30 MB of memory and 0.1 s to make.

    The library's scripted policies, which see the goal, provide `optimal_action`. They solve the tasks (148 of 150
    episodes over all 50 kinds), but not necessarily with the highest possible return.
    """

    benchmark: Literal["ML1", "ML10", "ML45"] = "ML1"
    env: str | None = None
    goals_seed: Annotated[int, Field(ge=0, lt=2**32 - 1)] = 0
    episode_length: Annotated[int, Field(ge=1, le=500)] = 500

    def __post_init__(self) -> None:
        kinds = _library().ALL_V3_ENVIRONMENTS
        if self.benchmark != "ML1":
            if self.env is not None:
                raise ValueError(f"env {self.env!r}: is for ML1; {self.benchmark} has its own kinds: leave env out")
            return
        self.env = self.env or "reach-v3"
        if self.env not in kinds:
            raise ValueError(f"env {self.env!r}: Meta-World has no such environment{did_you_mean(self.env, kinds)}")

    @property
    def varies(self) -> str:
        return "rewards" if self.benchmark == "ML1" else "rewards and dynamics"

    @property
    def observation_space(self) -> gymnasium.Space[Any]:
        return self._spaces[0]

    @property
    def action_space(self) -> gymnasium.Space[Any]:
        return self._spaces[1]

    @functools.cached_property
    def _spaces(self) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
        env = made(self._makers(self.all_tasks().take([0]))[0])
        env.close()
        return env.observation_space, env.action_space

    @property
    def goals(self) -> "Goals":
        """The benchmark's tasks, drawn once per process, which takes 1 s for ML1, 6 s for ML10 and 30 s for ML45."""
        return _drawn(self.benchmark, self.env, self.goals_seed)

    def all_tasks(self) -> Tasks:
        """The benchmark's training tasks, followed by its test tasks."""
        sets = [self._set(tasks) for tasks in (self.goals.train, self.goals.test)]
        return Tasks({name: np.concatenate([tasks[name] for tasks in sets]) for name in sets[0]})

    def split(self, train: float, test: float, seed: int) -> tuple[Tasks, Tasks]:
        """Training tasks from the benchmark's training tasks, and held-out tasks from its test tasks.

        Args:
            train: number of training tasks; a value below 1 is a fraction of the benchmark's.
            test: number or fraction of held-out tasks, likewise.
            seed: decides the goals of each kind; the kinds take turns, so that the first tasks cover all kinds.

        Raises ConfigError if the benchmark has too few tasks.
        """
        rng = np.random.default_rng(seed)
        parts = []
        for key, kind, wanted, every in (
            ("split.train", "training", train, self._set(self.goals.train)),
            ("split.test", "test", test, self._set(self.goals.test)),
        ):
            count = int(wanted) if wanted >= 1 else int(np.ceil(wanted * len(every) - 1e-9))
            if count > len(every):
                raise ConfigError(f"{key} {wanted}: {self.benchmark} has {len(every)} {kind} tasks: lower {key}")
            # Shuffle the goals within each kind; then take the first goal of every kind, the second, and so on.
            turn = np.empty(len(every))
            for kind_number in np.unique(every["environment"]):
                rows = np.flatnonzero(every["environment"] == kind_number)
                turn[rows] = rng.permutation(len(rows))
            order = np.lexsort((rng.permutation(len(every)), turn))
            parts.append(every.take(order[:count]))
        return parts[0], parts[1]

    def comparable(self, tasks: Tasks, described: Mapping[str, Any] | None = None) -> Tasks:
        """The tasks by a hash of kind and goal, since their numbers mean something else in another benchmark.

        Benchmarks share tasks: the test goals of ML1 with `goals_seed` 0 are its training goals with `goals_seed` 1.
        Raises UserError if the file's family cannot be one of Meta-World's, or has no such tasks.
        """
        if {*tasks} != {"environment", "goal"} or any(tasks[name].ndim != 1 for name in tasks):  # of another family
            return tasks
        numbered = self
        if described is not None:
            own = {key: described[key] for key in ("benchmark", "env", "goals_seed") if key in described}
            try:
                numbered = MetaWorld(**own)
            except (pydantic.ValidationError, ValueError, TypeError) as error:
                raise UserError(f"tasks of the data: {own}: is not a benchmark of Meta-World") from error
        makers = numbered._makers(tasks)
        hashes = [hashlib.sha256(maker.task.env_name.encode() + maker.task.data).digest() for maker in makers]
        return Tasks({"task": np.array([int.from_bytes(each[:8], "little") for each in hashes], np.uint64)})

    def make_vec(self, tasks: Tasks) -> ExpertProcessVectorEnv:
        """One simulation per slot. Raises UserError for a task that is not in the benchmark."""
        return ExpertProcessVectorEnv(
            self._makers(tasks), self.observation_space, self.action_space, self.episode_length
        )

    def random_estimate(self, tasks: Tasks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """An estimate from 4 episodes per task."""
        return simulated_random_estimate(self, tasks, _RANDOM_RETURN_EPISODES, 1, SLOTS_AT_ONCE)

    def draw(self, axes: Any, task: Tasks, observation: Any, reward: NDArray[Any]) -> bool:
        """The table from above: the starts of the hand and the first object, the goal, and the hand's path."""
        env: Any = made(self._makers(task)[0])
        first, _ = env.reset()
        goal = env.unwrapped._target_pos
        env.close()
        if len(observation):
            axes.plot(observation[:, 0], observation[:, 1], color="#2563eb", linewidth=1.2, alpha=0.8)
        axes.plot(goal[0], goal[1], "o", color="#f59e0b", markersize=9)
        axes.plot(first[4], first[5], "s", color="#9ca3af", markersize=7)
        axes.plot(first[0], first[1], "o", color="#111827", markersize=4)
        space = env.observation_space
        axes.set(xlim=(space.low[0], space.high[0]), ylim=(space.low[1], space.high[1]), aspect="equal")
        axes.set(xticks=[], yticks=[], title=self.goals.kinds[int(task["environment"][0])])
        return True

    def _set(self, pairs: "Sequence[tuple[int, int]]") -> Tasks:
        environment, goal = np.array(pairs, dtype=np.int64).T
        return Tasks({"environment": environment, "goal": goal})

    def _makers(self, tasks: Tasks) -> "list[RobotMaker]":
        makers = []
        for row in zip(tasks["environment"].tolist(), tasks["goal"].tolist(), strict=True):
            if row not in self.goals.tasks:
                raise UserError(f"environment {row[0]}, goal {row[1]}: {self.benchmark} has no such task")
            makers.append(RobotMaker(self.goals.tasks[row], row[1]))
        return makers


@dataclass(frozen=True)
class Goals:
    """The tasks of a benchmark. A task is identified by the number of its kind and its own number within the kind."""

    kinds: list[str]
    tasks: dict[tuple[int, int], Any]
    """The metaworld.Task of each (kind, number)."""
    train: list[tuple[int, int]]
    test: list[tuple[int, int]]


@functools.lru_cache(maxsize=8)
def _drawn(benchmark: str, env: str | None, seed: int) -> Goals:
    """Has Meta-World draw a benchmark's tasks, and numbers them: training tasks first, then test tasks."""
    library = _library()
    built = library.ML1(env, seed=seed) if env else getattr(library, benchmark)(seed=seed)
    kinds = list(dict.fromkeys([*built.train_classes, *built.test_classes]))
    goals = Goals(kinds, {}, [], [])
    counts = [0] * len(kinds)
    for tasks, numbers in ((built.train_tasks, goals.train), (built.test_tasks, goals.test)):
        for task in tasks:
            kind = kinds.index(task.env_name)
            numbers.append((kind, counts[kind]))
            goals.tasks[numbers[-1]] = task
            counts[kind] += 1
    return goals


@dataclass(frozen=True)
class RobotMaker:
    """Makes the simulation of one task, in this process or in another."""

    task: Any
    number: int

    def __call__(self) -> gymnasium.Env[Any, Any]:
        library = _library()
        env = library.ALL_V3_ENVIRONMENTS[self.task.env_name]()
        env.set_task(self.task)
        return ScriptedExpert(env, library.policies.ENV_POLICY_MAP[self.task.env_name]())

    def __str__(self) -> str:
        return f"Meta-World {self.task.env_name}, goal {self.number}"


class ScriptedExpert(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A simulation with the library's scripted policy for it, which sees the goal that the observation hides."""

    def __init__(self, env: gymnasium.Env[Any, Any], policy: Any) -> None:
        super().__init__(env)
        self.policy, self.seen = policy, np.empty(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.seen, info = self.env.reset(seed=seed, options=options)
        return self.seen, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.seen, reward, terminated, truncated, info = self.env.step(action)
        return self.seen, reward, terminated, truncated, info

    def optimal_action(self) -> NDArray[np.float32]:
        """The policy's action in the present state, shape (4,)."""
        goal = self.env.unwrapped._target_pos  # type: ignore[attr-defined]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Constant")  # of actions beyond the limits: see clip
            action = self.policy.get_action(np.concatenate([self.seen[:-3], goal]))
        return np.clip(action, -1, 1).astype(np.float32)


@functools.cache
def _library() -> Any:
    """The metaworld package, adapted to the installed MuJoCo. Raises ValueError if the package is not installed."""
    try:
        import metaworld
        import metaworld.policies
        import mujoco
        from metaworld.sawyer_xyz_env import SawyerMocapBase
    except ImportError as error:
        how = "pip install imageio scipy, then pip install --no-deps metaworld, in addition to in-context-rl[mujoco]"
        raise ValueError(f"meta_world needs Meta-World ({error}): {how}") from error
    if mujoco.mjNEQDATA > _WELD_FIELDS:  # MuJoCo 4 has twelve, and assigning eleven to twelve fails
        base: Any = SawyerMocapBase
        base.reset_mocap_welds = _reset_mocap_welds
    return metaworld


def _reset_mocap_welds(self: Any) -> None:
    """Meta-World's own method, restricted to the fields that Meta-World knows."""
    import mujoco

    welds = self.model.eq_type == mujoco.mjtEq.mjEQ_WELD
    self.model.eq_data[welds, :_WELD_FIELDS] = [0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 5]
