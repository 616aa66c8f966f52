"""The simulation behind the locomotion families: `mujoco.batch` steps all slots on C++ threads.

A slot is a simulation with its own values of the model fields that vary. If no field varies, a slot's trajectory is bit
for bit that of Gymnasium's environment from the same state, whatever the number of slots and threads.
"""

import multiprocessing
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from data_gen.tasks.base import Tasks
from data_gen.tasks.vector import TaskVectorEnv
from icrl.support.errors import UserError

_ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
_TORSO = 1  # body 0 is the world
_CONTACT_FORCE_LIMIT = 1.0  # Gymnasium's contact_force_range
_NO_TOTAL_MASS = -1.0  # the compiler's own value for "not given"


@dataclass(frozen=True)
class Robot:
    """The fixed properties of Gymnasium's environment of one robot."""

    xml: str
    """The model's file among Gymnasium's assets."""

    frame_skip: int
    """Simulator steps per environment step."""

    reset_noise: float
    """Scale of the noise on positions (uniform) and velocities at the start of an episode."""

    normal_velocities: bool = False
    """True if the velocities' noise is normal, False if it is uniform."""

    dimensions: int = 1
    """1 for a robot that moves along a line, 2 for a robot that moves in the plane."""

    contact_forces: bool = False
    """True if external forces on the bodies are observed and have a cost."""

    only_floor_contacts: bool = False
    """True if the robot's geoms touch the floor but never each other."""

    velocity_limit: float = np.inf
    """Observed velocities are clipped to [-velocity_limit, velocity_limit]."""

    def step_seconds(self, model: Any) -> float:
        """Duration of an environment step in seconds."""
        return float(model.opt.timestep * self.frame_skip)

    def num_contact_forces(self, model: Any) -> int:
        """Size of the observed contact forces: a force and a torque on each body except the world, or 0."""
        return 6 * (model.nbody - 1) if self.contact_forces else 0


@dataclass(frozen=True, eq=False)
class Motion:
    """The movement of each robot in one step."""

    place: NDArray[np.float64]
    """The torso's position in metres: (n, 1) x, or (n, 2) x and y."""

    velocity: NDArray[np.float64]
    """The change of `place` during the step divided by the step's duration; metres per second."""


def simulator() -> tuple[Any, Any]:
    """The modules `mujoco` and `mujoco.batch`. Raises UserError if they are not installed."""
    try:
        import mujoco
        from mujoco import batch
    except ImportError as error:
        why = f"the locomotion tasks need MuJoCo 4 or newer ({error})"
        raise UserError(f"{why}: pip install 'in-context-rl[mujoco]'") from error
    return mujoco, batch


@lru_cache
def load_model(xml: str, floor_pairs: bool = False) -> Any:
    """Gymnasium's model of a robot as an MjModel. The model is shared: write to copies only.

    With `floor_pairs`, contacts are searched only between the floor and each geom, as explicit pairs, instead of
    between all geoms. This gives the same contacts bit for bit and 9% more HalfCheetah steps, but `geom_friction` then
    has no effect.

    A model's `settotalmass` is applied here. The compiler, which does the same, would warn about it in every process
    and leave a MUJOCO_LOG.TXT in the working directory.
    """
    mujoco, _ = simulator()
    spec = mujoco.MjSpec.from_file(str(_ASSETS / xml))
    total_mass, spec.compiler.settotalmass = spec.compiler.settotalmass, _NO_TOTAL_MASS
    if floor_pairs:
        _name_floor_pairs(spec)
    model = spec.compile()
    if total_mass > 0:
        mujoco.mj_setTotalmass(model, total_mass)
        mujoco.mj_setConst(model, mujoco.MjData(model))
        model.stat.meaninertia = model.dof_M0.mean()  # scales the solver's tolerance; mj_setConst does not set it
    # The same motion, bit for bit, 7% faster: a robot is one kinematic tree, so islands of constraints need no search,
    # and bodies of one or two geoms need no tree of bounding boxes.
    bits = mujoco.mjtDisableBit
    model.opt.disableflags |= bits.mjDSBL_ISLAND | bits.mjDSBL_MIDPHASE
    return model


def _name_floor_pairs(spec: Any) -> None:
    """Replaces the search for contacts by explicit pairs of floor and geom, with the same contact parameters."""
    floor = spec.geom("floor")
    for geom in spec.geoms:
        geom.contype = geom.conaffinity = 0
        if geom.name != floor.name:
            slide, spin, roll = geom.friction
            pair = spec.add_pair(geomname1=floor.name, geomname2=geom.name, condim=geom.condim)
            pair.friction[:] = (slide, slide, spin, roll, roll)
            pair.solref[:], pair.solimp[:] = geom.solref, geom.solimp
            pair.margin, pair.gap = geom.margin, geom.gap


def num_threads() -> int:
    """Number of threads of a batch: one per core, but one in a worker process, whose siblings use the other cores."""
    if multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class RewardWeights:
    """Weights of a reward's terms, named after Gymnasium's arguments."""

    ctrl_cost_weight: float
    contact_cost_weight: float = 0.0
    healthy_reward: float = 0.0

    offset: float = 0.0
    """Added on every step to the forward term of `goal: velocity`."""


class SimulatedFamily(Protocol):
    """The part of a locomotion family that its simulation needs."""

    episode_length: int
    vary: Any
    robot: ClassVar[Robot]

    @property
    def observation_space(self) -> gymnasium.spaces.Box: ...

    @property
    def action_space(self) -> gymnasium.spaces.Box: ...

    @property
    def terminates(self) -> bool: ...

    @property
    def observed_from(self) -> int: ...

    def reward_weights(self) -> RewardWeights: ...

    def scaled_rows(self, field: str) -> NDArray[np.intp]: ...

    def healthy(self, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> NDArray[np.bool_]: ...

    def forward_reward(self, tasks: Tasks, motion: Motion) -> NDArray[np.float64]: ...


class LocomotionVectorEnv(TaskVectorEnv):
    """One simulation per slot.

    `batch` is the `mujoco.batch.Batch`; `batch.get_model(slot)` is the slot's own model. `motion` and `reward_terms`
    belong to the last step, before any autoreset; the terms have Gymnasium's names and shape (num_envs,).
    """

    def __init__(self, family: SimulatedFamily, tasks: Tasks) -> None:
        super().__init__(len(tasks), family.observation_space, family.action_space, family.episode_length)
        self._mujoco, batch = simulator()
        self._family, self._tasks, self._robot = family, tasks, family.robot
        self._weights, self._terminates = family.reward_weights(), family.terminates
        pairs = self._robot.only_floor_contacts and "geom_friction" not in family.vary
        self._model = load_model(self._robot.xml, pairs)
        self._step_seconds = self._robot.step_seconds(self._model)
        # Contact forces are computed from a simulation's own MjData, which a persistent batch keeps (0.2 MB per slot).
        threads, persistent = min(num_threads(), self.num_envs), self._robot.contact_forces
        self.batch = batch.Batch(self._model, self.num_envs, threads, persistent)
        self._scale_fields()
        self._qpos, self._qvel, self._ctrl = (self.batch.bind(name) for name in ("qpos", "qvel", "ctrl"))
        self._xpos, self._num_contacts = self.batch.bind("xpos"), self.batch.bind("ncon")
        self._data = self._mujoco.MjData(self._model)
        self._contact_forces = np.zeros((self.num_envs, self._robot.num_contact_forces(self._model)))
        self._origin = self._torso_position()
        self.motion = Motion(self._origin, np.zeros_like(self._origin))
        self.reward_terms: dict[str, NDArray[np.float64]] = {}

    def _scale_fields(self) -> None:
        """Gives each simulation its values of the fields that vary, and the constants that follow from these values.

        `set_const` gives a slot the constants that compiling a model with these masses would give. Without it, as in
        the original code, constraints would keep the inverse weights of the nominal masses.
        """
        family = self._family
        for name in family.vary:
            self.batch.expand(name)[:, family.scaled_rows(name)] *= self._tasks[name]
        if {"body_mass", "body_inertia"} & set(family.vary):
            self.batch.set_const()

    def set_state(self, slots: NDArray[np.intp], qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> None:
        """Puts simulations into a state without control; nothing remains of the previous state.

        Args:
            slots: (n,) indices of the simulations, in ascending order.
            qpos: (n, nq) generalised positions.
            qvel: (n, nv) generalised velocities.
        """
        self.batch.reset(slots, stage=self._mujoco.mjtStage.mjSTAGE_NONE.value)
        self._qpos[slots], self._qvel[slots] = qpos, qvel
        self.batch.forward(slots)  # as in Gymnasium: the first step's solver starts from this result
        self._origin[slots] = self._torso_position()[slots]
        self._contact_forces[slots] = 0

    def _restart(self, slots: NDArray[np.intp]) -> None:
        model, scale = self._model, self._robot.reset_noise
        positions = model.qpos0 + scale * (2 * self.streams.uniform_at(slots, model.nq) - 1)
        if self._robot.normal_velocities:
            velocities = scale * self.streams.normal_at(slots, model.nv)
        else:
            velocities = scale * (2 * self.streams.uniform_at(slots, model.nv) - 1)
        self.set_state(slots, positions, velocities)

    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        # simulate
        actions = actions.astype(np.float64)
        self._ctrl[:] = actions
        self.batch.step(nstep=self._robot.frame_skip)
        place = self._torso_position()
        self.motion = Motion(place, (place - self._origin) / self._step_seconds)
        self._origin = place.copy()  # a copy, since a restart writes to it
        if self._robot.contact_forces:
            self._read_contact_forces()
        # reward
        healthy, weights = self._family.healthy(self._qpos, self._qvel), self._weights
        contact_costs = weights.contact_cost_weight * np.square(self._contact_forces).sum(axis=1)
        terms = {
            "reward_forward": self._family.forward_reward(self._tasks, self.motion),
            "reward_survive": weights.healthy_reward * healthy,
            "reward_ctrl": -weights.ctrl_cost_weight * np.square(actions).sum(axis=1),
            "reward_contact": -contact_costs,
        }
        self.reward_terms = terms
        gains, losses = terms["reward_forward"] + terms["reward_survive"], terms["reward_ctrl"] - contact_costs
        return gains + losses, ~healthy & self._terminates

    def _read_contact_forces(self) -> None:
        """Reads the external force and torque on each body, clipped as in Gymnasium.

        A batch has no call that computes them, so simulations with contacts are visited one by one, which takes 6 of
        the 150 microseconds of an Ant's step; other simulations have no forces. The shared model suffices, because a
        contact holds its own friction.
        """
        self._contact_forces[:] = 0
        for slot in np.flatnonzero(self._num_contacts):
            self.batch.get_data(slot, self._data)
            self._mujoco.mj_rnePostConstraint(self._model, self._data)
            self._contact_forces[slot] = self._data.cfrc_ext[1:].ravel()
        np.clip(self._contact_forces, -_CONTACT_FORCE_LIMIT, _CONTACT_FORCE_LIMIT, out=self._contact_forces)

    def _torso_position(self) -> NDArray[np.float64]:
        """A copy of each torso's position; in the plane, as in Gymnasium, the one of the last forward pass."""
        return self._xpos[:, _TORSO, :2].copy() if self._robot.dimensions == 2 else self._qpos[:, :1].copy()

    def _observe(self) -> NDArray[np.float64]:
        limit = self._robot.velocity_limit
        velocities = self._qvel if limit == np.inf else np.clip(self._qvel, -limit, limit)
        return np.concatenate([self._qpos[:, self._family.observed_from :], velocities, self._contact_forces], axis=1)
