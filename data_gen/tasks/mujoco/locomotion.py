"""What the MuJoCo locomotion families share: goals, varied model fields, rewards and random returns.

A family's tasks differ in a goal, in model fields (masses, inertias, damping, friction), or in both. How the fields
vary follows the code behind ProMP (Rothfuss et al. 2019) and PEARL (Rakelly et al. 2019), `dennisl88/rand_param_envs`:
each body, joint and geom has its own factor, drawn log-uniformly. `locomotion_env` simulates, `locomotion_picture`
draws.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from data_gen.streams import Seeds, SlotStreams, derive, make_seeds
from data_gen.tasks.base import TaskDistribution, Tasks, sample_actions
from data_gen.tasks.mujoco.locomotion_env import LocomotionVectorEnv, Motion, Robot, load_model
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
_RANDOM_EPISODES = 64  # a task
_RANDOM_EPISODES_OF_ALL = 128  # where all tasks share them
_MOST_SLOTS = 1024  # simulated at once for random returns, so that many tasks need little memory
_RANDOM_SEED = 2
_ROUNDING = 1e-5  # of factors, which are stored in single precision


@dataclass(frozen=True)
class RewardWeights:
    """Weights of a reward's terms, by the names of Gymnasium's arguments."""

    ctrl_cost_weight: float
    contact_cost_weight: float = 0.0
    healthy_reward: float = 0.0

    offset: float = 0.0
    """Added on every step to the forward term of `goal: velocity`."""


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
                f"vary [] with goal none leaves nothing that differs; vary some of {', '.join(ALL_FIELDS)}"
            )
        if not self.velocity_range[0] < self.velocity_range[1]:
            raise ValueError(f"velocity_range {list(self.velocity_range)} is empty: the first has to be the smaller")

    @abstractmethod
    def reward_weights(self) -> RewardWeights:
        """The weights that go with the goal."""

    @property
    def terminates(self) -> bool:
        """Whether a robot that is not `healthy` ends its episode."""
        return False

    def healthy(self, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each robot stands, (n,), from (n, nq) positions and (n, nv) velocities."""
        return np.ones(len(qpos), dtype=np.bool_)

    def forward_reward(self, tasks: Tasks, motion: Motion) -> NDArray[np.float64]:
        """The term that the goal decides, (n,). `tasks` has n rows, or one for all."""
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
        """The first position that is observed: those before it say where the robot is, which matters to one goal."""
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
        """The bodies, degrees of freedom or geoms that have a factor: those whose value is not zero anyhow."""
        nominal = getattr(load_model(self.robot.xml), field)
        return np.flatnonzero(nominal.reshape(len(nominal), -1).any(axis=1))

    def task_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each array of one task: the goal's, and the factors of every field that varies."""
        shapes = dict(_GOAL_SHAPES[self.goal])
        for name in self.vary:
            shapes[name] = (len(self.scaled_rows(name)), *getattr(load_model(self.robot.xml), name).shape[1:])
        return shapes

    def all_tasks(self) -> Tasks | None:
        """Backwards and forwards, if only the direction differs."""
        return None if self.vary or self.goal != "direction" else Tasks({"direction": np.array([-1.0, 1.0])})

    def sample(self, num_tasks: int, seed: int) -> Tasks:
        """Goals, then factors, which are single precision: 100,000 Ants with four fields varied are 41 MB."""
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
        """Raises UserError for tasks that are not of this family, or if MuJoCo is not installed."""
        for name, shape in self.task_shapes().items():
            if name not in tasks or tasks[name].shape[1:] != shape:
                raise UserError(f"{name} is an array of shape {('num_tasks', *shape)} in tasks of this family")
        outside = self._outside(tasks)
        if outside:
            raise UserError(f"a task lies outside the family: {outside}")
        return LocomotionVectorEnv(self, tasks)

    def _outside(self, tasks: Tasks) -> str:
        """What is wrong with tasks of the right shapes; empty where nothing is."""
        if self.goal == "direction" and not np.isin(tasks["direction"], (-1, 1)).all():
            return "a direction is -1 or 1"
        low, high = self.velocity_range
        if self.goal == "velocity" and not ((tasks["velocity"] >= low) & (tasks["velocity"] <= high)).all():
            return f"velocity_range is [{low}, {high}]"
        if self.goal == "angle" and not np.isfinite(tasks["angle"]).all():
            return "an angle is a number of radians"
        if self.goal == "position" and not (np.hypot(*tasks["position"].T) <= self.goal_radius * (1 + _ROUNDING)).all():
            return f"goal_radius is {self.goal_radius}"
        for name in self.vary:
            limit = SCALE_BASE[name] ** self.log_scale_limit * (1 + _ROUNDING)
            if not ((tasks[name] >= 1 / limit) & (tasks[name] <= limit)).all():
                return f"factors of {name} lie in [{1 / limit:.3g}, {limit:.3g}], which log_scale_limit sets"
        return ""

    def random_return(self, tasks: Tasks) -> NDArray[np.float64]:
        """An estimate from 64 simulated episodes a task with fixed seeds.

        Where no dynamics vary, the goal changes what an episode earns and not what happens in it, so the same 128
        episodes are rated once for each goal. The base's 256 episodes for each task would take minutes here.
        """
        if not self.vary:
            played = tasks.take(np.zeros(_RANDOM_EPISODES_OF_ALL, dtype=np.intp))
            rated = [tasks.take([task]) for task in range(len(tasks))]
            return self._random_returns(played, make_seeds(len(played), _RANDOM_SEED), rated).mean(axis=1)
        seeds, at_once = make_seeds(_RANDOM_EPISODES, _RANDOM_SEED), _MOST_SLOTS // _RANDOM_EPISODES
        means = []
        for first in range(0, len(tasks), at_once):
            block = tasks.take(slice(first, first + at_once))
            played = block.take(np.repeat(np.arange(len(block)), len(seeds)))
            returns = self._random_returns(played, np.tile(seeds, len(block)), [played])
            means.append(returns.reshape(len(block), len(seeds)).mean(axis=1))
        return np.concatenate(means)

    def _random_returns(self, played: Tasks, seeds: Seeds, rated: list[Tasks]) -> NDArray[np.float64]:
        """Returns of the random policy's first episode in each slot, as each of `rated` rewards it.

        Args:
            played: (n,) the slots' tasks.
            seeds: (n,) the slots' seeds.
            rated: tasks with the same dynamics; each has n rows, or one for all slots.

        Returns an array of shape (len(rated), n).
        """
        envs, streams = self.make_vec(played), SlotStreams(derive(seeds, 1))
        returns, on = np.zeros((len(rated), len(played))), np.ones(len(played), dtype=np.bool_)
        envs.reset(seed=seeds)
        while on.any():
            actions = sample_actions(envs.single_action_space, streams)
            _, rewards, terminated, truncated, _ = envs.step(actions)
            rest = rewards - envs.reward_terms["reward_forward"]
            for row, tasks in enumerate(rated):
                returns[row] += on * (rest + self.forward_reward(tasks, envs.motion))
            on &= ~(terminated | truncated)
        return returns

    def draw(self, axes: Any, task: Tasks, observation: NDArray[Any], reward: NDArray[Any]) -> bool:
        """The episode's way with the goal in amber, and bars of the factors on a logarithmic scale."""
        model, dimensions, first = load_model(self.robot.xml), self.robot.dimensions, self.observed_from
        seconds = self.robot.step_seconds(model)
        times = seconds * np.arange(len(observation))
        if first == 0:
            path = np.asarray(observation[:, :dimensions], dtype=np.float64)
        else:  # the place is not observed, but the velocities are, after the other positions
            velocity = np.asarray(observation[:, model.nq - first :][:, :dimensions], dtype=np.float64)
            path = seconds * (np.cumsum(velocity, axis=0) - velocity)
        draw_task(axes, self.goal, {name: task[name][0] for name in task}, times, path, seconds * self.episode_length)
        return True
