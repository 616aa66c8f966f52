"""The base of the MuJoCo locomotion families: goals, varied model fields, rewards and random returns.

A family's tasks differ in a goal, in model fields (masses, inertias, damping, friction), or in both. The fields vary as
in the code behind ProMP (Rothfuss et al. 2019) and PEARL (Rakelly et al. 2019), `dennisl88/rand_param_envs`: each body,
joint and geom has its own log-uniform factor. `locomotion_env` simulates, and `locomotion_picture` draws.
"""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from data_gen.streams import Seeds, SlotStreams, derive, make_seeds
from data_gen.tasks.base import TaskDistribution, Tasks, sample_actions
from data_gen.tasks.mujoco.locomotion_env import LocomotionVectorEnv, Motion, RewardWeights, Robot, load_model
from data_gen.tasks.mujoco.locomotion_picture import draw_task
from icrl.support.errors import UserError

ModelField = Literal["body_mass", "body_inertia", "dof_damping", "geom_friction"]

ALL_FIELDS: tuple[ModelField, ...] = ("body_mass", "body_inertia", "dof_damping", "geom_friction")

SCALE_BASE = {"body_mass": 1.5, "body_inertia": 1.5, "dof_damping": 1.3, "geom_friction": 1.5}
"""A factor is its base to the power of U[-log_scale_limit, log_scale_limit]; rand_param_envs, base.py."""

_GOAL_SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "none": {},
    "direction": {"direction": ()},
    "velocity": {"velocity": ()},
    "angle": {"angle": ()},
    "position": {"position": (2,)},
}
_RANDOM_EPISODES = 64  # per task
_RANDOM_EPISODES_OF_ALL = 128  # in total, where all tasks share the episodes
_MOST_SLOTS = 1024  # simulated at once for random returns; bounds the memory for many tasks
_RANDOM_SEED = 2
_ROUNDING = 1e-5  # relative, of factors, which are stored in single precision


class Locomotion(TaskDistribution):
    """Base of the families: a robot, a goal, model fields that vary, and a reward of up to four terms.

    A reward is (forward + survive) - (control + contact), as in Gymnasium's environments.
    """

    robot: ClassVar[Robot]
    goal: str = "none"
    vary: tuple[ModelField, ...]
    log_scale_limit: float
    velocity_range: tuple[float, float] = (0.0, 1.0)
    goal_radius: float = 0.0

    def __post_init__(self) -> None:
        if len(set(self.vary)) < len(self.vary):
            raise ValueError(f"vary {list(self.vary)} names a field twice")
        if self.goal == "none" and not self.vary:
            raise ValueError(
                f"vary [] with goal none leaves nothing that differs: vary some of {', '.join(ALL_FIELDS)}"
            )
        if not self.velocity_range[0] < self.velocity_range[1]:
            raise ValueError(f"velocity_range {list(self.velocity_range)} is empty: the first must be below the second")

    @abstractmethod
    def reward_weights(self) -> RewardWeights:
        """The reward weights that belong to the goal."""

    @property
    def terminates(self) -> bool:
        """True if a robot that is not `healthy` ends its episode."""
        return False

    def healthy(self, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> NDArray[np.bool_]:
        """True for each robot that is healthy, (n,), given (n, nq) positions and (n, nv) velocities."""
        return np.ones(len(qpos), dtype=np.bool_)

    def forward_reward(self, tasks: Tasks, motion: Motion) -> NDArray[np.float64]:
        """The term of the reward that depends on the goal, (n,). `tasks` has n rows, or one row for all."""
        along_x = motion.velocity[:, 0]
        if self.goal == "direction":
            return tasks["direction"] * along_x
        if self.goal == "velocity":
            return self.reward_weights().offset - np.abs(along_x - tasks["velocity"])
        if self.goal == "angle":
            return np.cos(tasks["angle"]) * along_x + np.sin(tasks["angle"]) * motion.velocity[:, 1]
        if self.goal == "position":
            return -np.abs(motion.place - tasks["position"]).sum(axis=1)
        return along_x

    @property
    def varies(self) -> str:
        if self.goal == "none":
            return "dynamics"
        return "rewards and dynamics" if self.vary else "rewards"

    @property
    def observed_from(self) -> int:
        """Index of the first observed position; those before it locate the robot, which only `goal: position` needs."""
        return 0 if self.goal == "position" else self.robot.dimensions

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        model = load_model(self.robot.xml)
        size = model.nq - self.observed_from + model.nv + self.robot.num_contact_forces(model)
        return gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float64)

    @property
    def action_space(self) -> gymnasium.spaces.Box:
        low, high = load_model(self.robot.xml).actuator_ctrlrange.astype(np.float32).T
        return gymnasium.spaces.Box(low, high, dtype=np.float32)

    def scaled_rows(self, field: str) -> NDArray[np.intp]:
        """Indices of the bodies, degrees of freedom or geoms that have a factor: those with a nonzero value."""
        nominal = getattr(load_model(self.robot.xml), field)
        return np.flatnonzero(nominal.reshape(len(nominal), -1).any(axis=1))

    def task_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each array of a single task: the goal's, and the factors of every field that varies."""
        shapes = dict(_GOAL_SHAPES[self.goal])
        for name in self.vary:
            shapes[name] = (len(self.scaled_rows(name)), *getattr(load_model(self.robot.xml), name).shape[1:])
        return shapes

    def all_tasks(self) -> Tasks | None:
        """Backwards and forwards if only the direction differs, else None."""
        return None if self.vary or self.goal != "direction" else Tasks({"direction": np.array([-1.0, 1.0])})

    def sample(self, num_tasks: int, seed: int) -> Tasks:
        """Draws goals, then factors, in single precision: 100,000 Ants with four varied fields take 41 MB."""
        rng = np.random.default_rng(seed)
        arrays: dict[str, NDArray[Any]] = {}
        if self.goal == "direction":
            arrays["direction"] = rng.choice([-1.0, 1.0], num_tasks)
        elif self.goal == "velocity":
            arrays["velocity"] = rng.uniform(*self.velocity_range, num_tasks)
        elif self.goal == "angle":
            arrays["angle"] = rng.uniform(0, 2 * np.pi, num_tasks)
        elif self.goal == "position":  # uniform in the disc
            angle, radius = 2 * np.pi * rng.random(num_tasks), self.goal_radius * np.sqrt(rng.random(num_tasks))
            arrays["position"] = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        shapes = self.task_shapes()
        for name in self.vary:
            exponent = 2 * rng.random((num_tasks, *shapes[name]), dtype=np.float32) - 1
            arrays[name] = np.exp(exponent * np.float32(self.log_scale_limit * np.log(SCALE_BASE[name])))
        return Tasks(arrays)

    def make_vec(self, tasks: Tasks) -> LocomotionVectorEnv:
        """One simulation per slot. Raises UserError for tasks outside this family, or if MuJoCo is not installed."""
        for name, shape in self.task_shapes().items():
            if name not in tasks or tasks[name].shape[1:] != shape:
                raise UserError(f"{name} must be an array of shape {('num_tasks', *shape)} in tasks of this family")
        outside = self._outside(tasks)
        if outside:
            raise UserError(f"a task lies outside the family: {outside}")
        return LocomotionVectorEnv(self, tasks)

    def _outside(self, tasks: Tasks) -> str:
        """Describes what is wrong with tasks of the right shapes; empty if nothing is."""
        if self.goal == "direction" and not np.isin(tasks["direction"], (-1, 1)).all():
            return "a direction must be -1 or 1"
        low, high = self.velocity_range
        if self.goal == "velocity" and not ((tasks["velocity"] >= low) & (tasks["velocity"] <= high)).all():
            return f"velocity_range is [{low}, {high}]"
        if self.goal == "angle" and not np.isfinite(tasks["angle"]).all():
            return "an angle must be a finite number of radians"
        if self.goal == "position" and not (np.hypot(*tasks["position"].T) <= self.goal_radius * (1 + _ROUNDING)).all():
            return f"goal_radius is {self.goal_radius}"
        for name in self.vary:
            limit = SCALE_BASE[name] ** self.log_scale_limit * (1 + _ROUNDING)
            if not ((tasks[name] >= 1 / limit) & (tasks[name] <= limit)).all():
                return f"factors of {name} must lie in [{1 / limit:.3g}, {limit:.3g}], set by log_scale_limit"
        return ""

    def random_estimate(self, tasks: Tasks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """An estimate from 64 simulated episodes per task with fixed seeds.

        If no dynamics vary, the goal changes the rewards of an episode but not its states, so the same 128 episodes are
        scored once for each goal. The base's 256 episodes per task would take minutes here.
        """
        if not self.vary:
            played = tasks.take(np.zeros(_RANDOM_EPISODES_OF_ALL, dtype=np.intp))
            scored = [tasks.take([task]) for task in range(len(tasks))]
            return _mean_and_error(self._random_returns(played, make_seeds(len(played), _RANDOM_SEED), scored))
        seeds, at_once = make_seeds(_RANDOM_EPISODES, _RANDOM_SEED), _MOST_SLOTS // _RANDOM_EPISODES
        returns = []
        for first in range(0, len(tasks), at_once):
            block = tasks.take(slice(first, first + at_once))
            played = block.take(np.repeat(np.arange(len(block)), len(seeds)))
            returns.append(self._random_returns(played, np.tile(seeds, len(block)), [played]).reshape(len(block), -1))
        return _mean_and_error(np.concatenate(returns))

    def _random_returns(self, played: Tasks, seeds: Seeds, scored: list[Tasks]) -> NDArray[np.float64]:
        """Returns of the random policy's first episode in each slot, as scored by each of `scored`.

        Args:
            played: (n,) the slots' tasks.
            seeds: (n,) the slots' seeds.
            scored: tasks with the same dynamics; each has n rows, or one row for all slots.

        Returns an array of shape (len(scored), n).
        """
        envs, streams = self.make_vec(played), SlotStreams(derive(seeds, 1))
        returns, running = np.zeros((len(scored), len(played))), np.ones(len(played), dtype=np.bool_)
        envs.reset(seed=seeds)
        while running.any():
            actions = sample_actions(envs.single_action_space, streams)
            _, rewards, terminated, truncated, _ = envs.step(actions)
            # Only the forward term depends on the goal.
            rest = rewards - envs.reward_terms["reward_forward"]
            for row, tasks in enumerate(scored):
                returns[row] += running * (rest + self.forward_reward(tasks, envs.motion))
            running &= ~(terminated | truncated)
        return returns

    def draw(self, axes: Any, task: Tasks, observation: NDArray[Any], reward: NDArray[Any]) -> bool:
        """Draws the path of an episode, the goal in amber, and the factors as bars on a logarithmic scale."""
        model, dimensions, first = load_model(self.robot.xml), self.robot.dimensions, self.observed_from
        seconds = self.robot.step_seconds(model)
        times = seconds * np.arange(len(observation))
        if first == 0:
            path = np.asarray(observation[:, :dimensions], dtype=np.float64)
        else:  # x and y are not observed, but their velocities are, after the other positions
            velocity = np.asarray(observation[:, model.nq - first :][:, :dimensions], dtype=np.float64)
            path = seconds * (np.cumsum(velocity, axis=0) - velocity)
        draw_task(axes, self.goal, {name: task[name][0] for name in task}, times, path, seconds * self.episode_length)
        return True


def _mean_and_error(returns: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of (tasks, episodes) returns, and their standard errors, (tasks,) each."""
    return returns.mean(axis=1), returns.std(axis=1, ddof=1) / np.sqrt(returns.shape[1])
