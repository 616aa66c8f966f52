"""The MuJoCo locomotion families against Gymnasium's own environments and against MuJoCo stepped by hand."""

import copy
import multiprocessing
import subprocess
import sys

import gymnasium
import numpy as np
import pydantic
import pytest

from data_gen.returns import episode_returns
from data_gen.streams import SlotStreams, derive, make_seeds
from data_gen.tasks.base import Tasks, sample_actions
from data_gen.tasks.mujoco import locomotion_env
from data_gen.tasks.mujoco.ant import Ant
from data_gen.tasks.mujoco.half_cheetah import HalfCheetah
from data_gen.tasks.mujoco.hopper import Hopper
from data_gen.tasks.mujoco.locomotion import ALL_FIELDS, SCALE_BASE
from data_gen.tasks.mujoco.locomotion_env import load_model, num_threads, simulator
from data_gen.tasks.mujoco.walker2d import Walker2d
from icrl.support.errors import ConfigError, UserError

mujoco = pytest.importorskip("mujoco")
pytest.importorskip("imageio", reason="Gymnasium's own MuJoCo environments need it")

ROBOTS = {"HalfCheetah-v5": HalfCheetah, "Ant-v5": Ant, "Hopper-v5": Hopper, "Walker2d-v5": Walker2d}


@pytest.fixture(params=ROBOTS, ids=str)
def name(request):
    return request.param


@pytest.fixture(autouse=True)
def temporary_working_folder(tmp_path, monkeypatch):
    """Works in a temporary folder: Gymnasium's HalfCheetah makes MuJoCo write a log to the working directory."""
    monkeypatch.chdir(tmp_path)


def without_goal(name, fields=ALL_FIELDS, **params):
    """The family with Gymnasium's own reward."""
    goal = {"goal": "none"} if name in ("HalfCheetah-v5", "Ant-v5") else {}
    return ROBOTS[name](vary=fields, **goal, **params)


def unvaried(family, num_tasks):
    """Tasks whose factors are all 1."""
    return Tasks({key: np.ones_like(values) for key, values in family.sample(num_tasks, 0).arrays.items()})


def random_actions(envs, steps, seed=0):
    shape = (steps, envs.num_envs, *envs.single_action_space.shape)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def a_state(envs, seed=0):
    """One state per slot, of shapes (n, nq) and (n, nv)."""
    envs.reset(seed=make_seeds(envs.num_envs, seed))
    return envs.batch.qpos.copy(), envs.batch.qvel.copy()


def test_without_variation_an_episode_equals_gymnasiums_step_by_step(name):
    family = without_goal(name, episode_length=60)
    envs = family.make_vec(unvaried(family, 2))
    peers = [gymnasium.make(name).unwrapped for _ in range(2)]
    assert (envs.single_observation_space, envs.single_action_space) == (
        peers[0].observation_space,
        peers[0].action_space,
    )

    def follow(slot):
        mujoco.mj_resetData(peers[slot].model, peers[slot].data)
        peers[slot].set_state(envs.batch.qpos[slot].copy(), envs.batch.qvel[slot].copy())
        np.testing.assert_array_equal(peers[slot]._get_obs(), envs._observe()[slot])

    envs.reset(seed=0)
    follow(0), follow(1)
    ends = []
    for actions in random_actions(envs, 250):
        observation, reward, terminated, truncated, infos = envs.step(actions)
        observation = infos.get("final_obs", observation)
        for slot, peer in enumerate(peers):
            theirs, their_reward, their_end, _, info = peer.step(actions[slot])
            np.testing.assert_array_equal(observation[slot], theirs)
            assert reward[slot] == pytest.approx(their_reward, abs=1e-6)
            assert terminated[slot] == their_end
            for term, values in envs.reward_terms.items():
                assert values[slot] == pytest.approx(info.get(term, 0.0), abs=1e-6), term
            if name == "Ant-v5":
                np.testing.assert_array_equal(envs.motion.velocity[slot], [info["x_velocity"], info["y_velocity"]])
                np.testing.assert_array_equal(envs.motion.place[slot], peer.data.body("torso").xpos[:2])
            else:
                assert (envs.motion.velocity[slot], envs.motion.place[slot]) == (info["x_velocity"], info["x_position"])
            if terminated[slot] or truncated[slot]:
                ends.append(bool(terminated[slot]))
                follow(slot)
    assert any(ends) == (name != "HalfCheetah-v5") and len(ends) >= 4


def test_from_a_state_on_the_ground_a_step_equals_gymnasiums(name):
    """With contacts from the first step on. Setting a state leaves out nothing that Gymnasium's step depends on."""
    family = without_goal(name)
    envs, peer = family.make_vec(unvaried(family, 1)), gymnasium.make(name).unwrapped
    a_state(envs)
    for actions in random_actions(envs, 100):
        envs._advance(actions)
    qpos, qvel = envs.batch.qpos.copy(), envs.batch.qvel.copy()
    qpos[:, 2 if name == "Ant-v5" else 1] -= 0.05  # metres, into the floor
    envs.set_state(np.arange(1), qpos, qvel)
    peer.reset()
    peer.set_state(qpos[0], qvel[0])
    assert peer.data.ncon
    for actions in random_actions(envs, 3, seed=1):
        envs._advance(actions)
        np.testing.assert_array_equal(envs._observe()[0], peer.step(actions[0])[0])


def test_the_model_equals_gymnasiums_and_loading_it_leaves_no_log(name, tmp_path):
    load_model.cache_clear()
    ours = load_model(ROBOTS[name].robot.xml)
    assert not list(tmp_path.iterdir())
    theirs = gymnasium.make(name).unwrapped.model
    for field in dir(theirs):
        value = getattr(theirs, field)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(ours, field), value, field)
    assert ours.stat.meaninertia == theirs.stat.meaninertia


def edited_model(name, task):
    """Gymnasium's own model, changed by hand by one task's factors."""
    model = copy.copy(gymnasium.make(name).unwrapped.model)
    model.body_mass[1:] *= task["body_mass"][0]
    model.body_inertia[1:] *= task["body_inertia"][0]
    model.dof_damping[model.dof_damping > 0] *= task["dof_damping"][0]
    model.geom_friction *= task["geom_friction"][0]
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def test_a_slot_equals_a_single_simulation_of_its_own_model(name):
    family = without_goal(name)
    tasks = family.sample(3, seed=5)
    envs = family.make_vec(tasks)
    qpos, qvel = a_state(envs)
    singles = []
    for slot in range(3):
        model = edited_model(name, tasks.take([slot]))
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = qpos[slot], qvel[slot]
        mujoco.mj_forward(model, data)
        singles.append((model, data))
        for field in ("body_subtreemass", "dof_invweight0", "body_invweight0", "dof_M0"):
            np.testing.assert_array_equal(getattr(envs.batch.get_model(slot), field), getattr(model, field), field)
    for actions in random_actions(envs, 40):
        envs._advance(actions)  # no episode ends here
        for slot, (model, data) in enumerate(singles):
            data.ctrl[:] = actions[slot]
            mujoco.mj_step(model, data, nstep=family.robot.frame_skip)
            np.testing.assert_array_equal(envs.batch.qpos[slot], data.qpos)
            np.testing.assert_array_equal(envs.batch.qvel[slot], data.qvel)
            if name == "Ant-v5":
                mujoco.mj_rnePostConstraint(model, data)
                forces = np.clip(data.cfrc_ext[1:].ravel(), -1, 1)
                np.testing.assert_array_equal(envs._observe()[slot, -78:], forces)


@pytest.mark.parametrize("field", ALL_FIELDS)
def test_each_field_alone_changes_the_motion_of_its_own_slot(name, field):
    family = without_goal(name, [field])
    tasks = family.sample(3, seed=2)
    tasks[field][1], tasks[field][2] = tasks[field][0], 1  # 0 and 1 have the same task, and 2 has the plain robot
    envs = family.make_vec(tasks)
    qpos, qvel = a_state(envs)
    envs.set_state(np.arange(3), qpos[[0, 0, 0]], qvel[[0, 0, 0]])
    for actions in random_actions(envs, 60):
        envs._advance(actions[[0, 0, 0]])
    ends = envs.batch.qpos
    np.testing.assert_array_equal(ends[0], ends[1])
    assert np.abs(ends[0] - ends[2]).max() > 1e-3


def test_factors_are_log_uniform_and_independent_per_body_joint_and_geom(name):
    family = without_goal(name, log_scale_limit=2.0)
    tasks = family.sample(4000, seed=0)
    for field in ALL_FIELDS:
        exponents = np.log(tasks[field]).reshape(4000, -1) / np.log(SCALE_BASE[field]) / 2.0
        assert -1 <= exponents.min() < -0.99 and 0.99 < exponents.max() <= 1 + 1e-6
        np.testing.assert_allclose(np.quantile(exponents, [0.25, 0.5, 0.75]), [-0.5, 0, 0.5], atol=0.03)
        correlation = np.corrcoef(exponents.T) - np.eye(exponents.shape[1])
        assert np.abs(correlation).max() < 0.1
    assert SCALE_BASE["dof_damping"] == 1.3  # as in the original code, unlike the other three


def test_a_value_of_zero_has_no_factor():
    shapes = without_goal("HalfCheetah-v5").task_shapes()
    assert shapes == {"body_mass": (7,), "body_inertia": (7, 3), "dof_damping": (6,), "geom_friction": (9, 3)}


@pytest.mark.parametrize(
    ("family", "task", "forward"),
    [
        (HalfCheetah(goal="direction"), {"direction": [-1.0]}, lambda place, v: -v[:, 0]),
        (HalfCheetah(goal="velocity"), {"velocity": [1.5]}, lambda place, v: -np.abs(v[:, 0] - 1.5)),
        (Ant(goal="direction"), {"direction": [1.0]}, lambda place, v: v[:, 0]),
        (Ant(goal="velocity"), {"velocity": [2.0]}, lambda place, v: 1 - np.abs(v[:, 0] - 2)),
        (Ant(goal="angle"), {"angle": [2.0]}, lambda place, v: v @ [np.cos(2), np.sin(2)]),
        (Ant(goal="position"), {"position": [[1.0, -2.0]]}, lambda place, v: -np.abs(place - [1, -2]).sum(axis=1)),
    ],
)
def test_the_goal_decides_the_forward_term(family, task, forward):
    envs = family.make_vec(Tasks({key: np.array(values).repeat(4, axis=0) for key, values in task.items()}))
    envs.reset(seed=0)
    for actions in random_actions(envs, 5):
        before = envs._origin.copy()
        _, reward, *_ = envs.step(actions)
        velocity = (envs.motion.place - before) / 0.05
        expected = forward(envs.motion.place, velocity)
        np.testing.assert_allclose(envs.reward_terms["reward_forward"], expected, atol=1e-9)
        np.testing.assert_allclose(reward, sum(envs.reward_terms.values()), atol=1e-9)


@pytest.mark.parametrize(
    ("family", "control", "survive"),
    [
        (HalfCheetah(goal="velocity"), 0.05, 0),
        (HalfCheetah(goal="direction", ctrl_cost_weight=0.1), 0.1, 0),
        (Ant(goal="direction"), 0.005, 0.05),
        (Ant(goal="angle"), 0.5, 1),
        (Ant(goal="position"), 0.1, 0),
        (Ant(goal="velocity", healthy_reward=0.3, ctrl_cost_weight=0), 0, 0.3),
    ],
)
def test_the_other_terms_have_the_weights_of_the_original_code(family, control, survive):
    envs = family.make_vec(family.sample(2, seed=0))
    envs.reset(seed=0)
    (actions,) = random_actions(envs, 1)
    envs.step(actions)
    np.testing.assert_allclose(envs.reward_terms["reward_ctrl"], -control * (actions**2).sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(envs.reward_terms["reward_survive"], survive)


def test_an_ant_with_a_goal_position_observes_its_position_and_does_not_terminate():
    family = Ant(goal="position", episode_length=100)
    envs = family.make_vec(family.sample(2, seed=0))
    observation, _ = envs.reset(seed=0)
    assert observation.shape == (2, 107)
    np.testing.assert_array_equal(observation[:, :2], envs.batch.qpos[:, :2])
    envs.set_state(np.arange(2), envs.batch.qpos + 2 * np.eye(15)[2], envs.batch.qvel)  # in the air, far too high
    terminated = envs.step(np.zeros((2, 8)))[2]
    assert not family.healthy(envs.batch.qpos, envs.batch.qvel).any() and not terminated.any()


@pytest.mark.parametrize(
    ("family", "index", "healthy", "unhealthy"),
    [
        (Ant(), 2, [0.2, 1.0], [0.199, 1.001, np.nan]),
        (Hopper(), 1, [0.701, 50], [0.7]),
        (Hopper(), 2, [-0.199, 0.199], [-0.2, 0.2]),
        (Hopper(), 4, [-99], [-100, 100]),
        (Walker2d(), 1, [0.801, 1.999], [0.8, 2.0]),
        (Walker2d(), 2, [-0.99, 0.99], [-1, 1]),
    ],
)
def test_the_limits_of_health_equal_gymnasiums(family, index, healthy, unhealthy):
    model = load_model(family.robot.xml)
    qpos = np.tile(model.qpos0, (len(healthy) + len(unhealthy), 1))
    qpos[:, index] = healthy + unhealthy
    expected = [True] * len(healthy) + [False] * len(unhealthy)
    assert family.healthy(qpos, np.zeros((len(qpos), model.nv))).tolist() == expected


def test_goals_are_drawn_as_in_the_papers():
    ant = Ant(goal="position", goal_radius=2.0).sample(5000, seed=0)["position"]
    radius = np.hypot(*ant.T)
    assert radius.max() <= 2 and np.mean(radius < 1) == pytest.approx(0.25, abs=0.03)  # uniform in the disc
    angle = Ant(goal="angle").sample(5000, seed=0)["angle"]
    assert 0 <= angle.min() < 0.01 and 6.27 < angle.max() < 2 * np.pi
    velocity = HalfCheetah(goal="velocity", velocity_range=(1, 3)).sample(5000, seed=0)["velocity"]
    assert 1 <= velocity.min() < 1.01 and 2.99 < velocity.max() <= 3
    direction = HalfCheetah(goal="direction", vary=["body_mass"]).sample(5000, seed=0)["direction"]
    assert set(direction) == {-1, 1} and abs(direction.mean()) < 0.05


def test_a_direction_goal_has_two_tasks_unless_something_else_varies():
    train, test = HalfCheetah(goal="direction").split(0.8, 0.2, seed=0)
    assert sorted([*train["direction"], *test["direction"]]) == [-1, 1]
    train, test = HalfCheetah(goal="direction", vary=["body_mass"]).split(50, 20, seed=0)
    assert len(train) == 50 and set(test["direction"]) == {-1, 1}


def test_what_varies_follows_from_the_parameters():
    assert Ant(goal="velocity").varies == "rewards"
    assert Ant(goal="velocity", vary=["body_mass"]).varies == "rewards and dynamics"
    assert Ant(goal="none", vary=["body_mass"]).varies == Hopper().varies == "dynamics"


def test_the_number_of_threads_does_not_change_the_results(name, monkeypatch):
    family = without_goal(name, episode_length=10)
    tasks, states = family.sample(5, seed=0), []
    for threads in (1, 3):
        monkeypatch.setattr(locomotion_env, "num_threads", lambda threads=threads: threads)
        envs = family.make_vec(tasks)
        assert envs.batch.nthread == threads
        envs.reset(seed=0)
        states.append([envs.step(actions)[0] for actions in random_actions(envs, 25)])
    np.testing.assert_array_equal(*states)


def test_a_worker_process_uses_one_thread(monkeypatch):
    assert num_threads() >= 1
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())
    assert num_threads() == 1


def test_a_new_episode_does_not_depend_on_the_last(name):
    family = without_goal(name)
    tasks = family.sample(2, seed=0)
    used, fresh = family.make_vec(tasks), family.make_vec(tasks)
    used.reset(seed=1)
    for actions in random_actions(used, 20):
        used.step(actions)
    qpos, qvel = a_state(fresh, seed=2)
    used.set_state(np.arange(2), qpos, qvel)
    np.testing.assert_array_equal(used.batch.state, fresh.batch.state)  # the solver's warm start included
    np.testing.assert_array_equal(used._observe(), fresh._observe())


def test_episodes_played_for_one_goal_are_scored_exactly_for_another():
    family, seeds = Ant(goal="velocity", episode_length=8), make_seeds(3, 0)
    tasks = family.sample(2, seed=0)
    played, other = tasks.take([0, 0, 0]), tasks.take([1, 1, 1])
    scored = family._random_returns(played, seeds, [tasks.take([1])])
    np.testing.assert_allclose(scored, family._random_returns(other, seeds, [other]), rtol=1e-12)


def test_random_returns_are_returns_of_first_episodes():
    family, seeds = Hopper(episode_length=30), make_seeds(40, 0)
    tasks = family.sample(40, seed=0)
    envs, streams = family.make_vec(tasks), SlotStreams(derive(seeds, 1))
    envs.reset(seed=seeds)
    rewards, ends = [], []
    for _ in range(30):
        _, reward, terminated, truncated, _ = envs.step(sample_actions(family.action_space, streams))
        rewards.append(reward)
        ends.append(terminated | truncated)
    expected = episode_returns(np.array(rewards).T, np.array(ends).T, 1)[:, 0]
    assert np.array(ends).sum() > 40  # some slots have started another episode
    np.testing.assert_allclose(family._random_returns(tasks, seeds, [tasks])[0], expected)


def test_random_returns_do_not_depend_on_the_other_tasks():
    family = HalfCheetah(goal="velocity", vary=["body_mass"], episode_length=3)
    tasks = family.sample(20, seed=0)  # more than are simulated at once
    alone = [family.random_return(tasks.take([task]))[0] for task in (0, 19)]
    np.testing.assert_array_equal(family.random_return(tasks)[[0, 19]], alone)


@pytest.mark.parametrize(
    ("cls", "params", "message"),
    [
        (HalfCheetah, {"goal": "none"}, "nothing that differs"),
        (Hopper, {"vary": []}, "nothing that differs"),
        (HalfCheetah, {"goal": "position"}, "goal"),
        (Ant, {"vary": ["geom_size"]}, "vary"),
        (Ant, {"vary": ["body_mass", "body_mass"]}, "names a field twice"),
        (HalfCheetah, {"goal": "velocity", "velocity_range": (2, 2)}, r"velocity_range \[2.0, 2.0\] is empty"),
        (Ant, {"goal": "position", "goal_radius": 0}, "goal_radius"),
        (Walker2d, {"log_scale_limit": 0}, "log_scale_limit"),
        (Walker2d, {"episode_length": 0}, "episode_length"),
    ],
)
def test_bad_parameters_are_refused(cls, params, message):
    with pytest.raises((pydantic.ValidationError, ValueError), match=message):
        cls(**params)


@pytest.mark.parametrize(
    ("family", "task", "message"),
    [
        (HalfCheetah(goal="direction"), {"direction": [0.5]}, "a direction must be -1 or 1"),
        (HalfCheetah(goal="velocity"), {"velocity": [2.5]}, r"velocity_range is \[0.0, 2.0\]"),
        (HalfCheetah(goal="velocity"), {"velocity": [np.nan]}, "velocity_range"),
        (HalfCheetah(goal="velocity"), {"direction": [1.0]}, "velocity must be an array of shape"),
        (Ant(goal="position"), {"position": [[3.0, 3.0]]}, "goal_radius is 3.0"),
        (Ant(goal="angle"), {"angle": [np.inf]}, "radians"),
        (Hopper(vary=["body_mass"]), {"body_mass": [[1.0, 1.0]]}, r"\('num_tasks', 4\)"),
        (Hopper(vary=["body_mass"]), {"body_mass": [[1.0, 1.0, 1.0, -1.0]]}, "log_scale_limit"),
        (Hopper(vary=["body_mass"]), {"body_mass": [[1.0, 1.0, 1.0, 4.0]]}, r"\[0.296, 3.38\]"),
    ],
)
def test_tasks_outside_the_family_are_refused_in_one_line(family, task, message):
    with pytest.raises(UserError, match=message) as refusal:
        family.make_vec(Tasks({key: np.array(values) for key, values in task.items()}))
    assert "\n" not in str(refusal.value)


def test_a_split_larger_than_the_two_directions_is_refused():
    with pytest.raises(ConfigError, match="has 2"):
        HalfCheetah(goal="direction").split(2, 1, seed=0)


def test_without_mujoco_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(UserError, match=r"pip install 'in-context-rl\[mujoco\]'"):
        simulator()


def test_no_import_of_this_project_imports_mujoco():
    code = (
        "import sys, data_gen, data_gen.tasks.mujoco.ant, data_gen.tasks.mujoco.hopper; print('mujoco' in sys.modules)"
    )
    root = str(locomotion_env.Path(locomotion_env.__file__).parents[2])
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=root).strip() == "False"


@pytest.mark.parametrize(
    "family", [HalfCheetah(), Ant(goal="velocity", vary=ALL_FIELDS), Ant(goal="position"), Ant(goal="angle"), Hopper()]
)
def test_a_picture_shows_the_path_in_its_direction(family):
    from matplotlib.figure import Figure

    task = family.sample(1, seed=0)
    envs = family.make_vec(task)
    observations, places = [envs.reset(seed=make_seeds(1, 0))[0][0]], [np.zeros(envs._origin.shape[1])]
    start = envs._origin[0].copy()
    for actions in random_actions(envs, 15):
        observations.append(envs.step(actions)[0][0])
        places.append(envs.motion.place[0] - start)
    axes = Figure().subplots()
    assert family.draw(axes, task, np.array(observations), np.zeros(16))
    drawn = axes.child_axes[0] if family.goal == "none" else axes
    paths = [line for line in drawn.lines if line.get_color() == "#2563eb"]
    assert len(paths) == 1
    from_above = family.goal in ("position", "angle")
    path = np.stack(paths[0].get_data(), axis=1) if from_above else paths[0].get_ydata()[:, None]
    # A path from velocities ignores changes of velocity within a step.
    np.testing.assert_allclose(path - path[0], np.array(places)[:, : path.shape[1]], atol=0.15)
