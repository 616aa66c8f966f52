"""CartPole, Pendulum and Acrobot with varied physics, against Gymnasium's own environments."""

import gymnasium
import numpy as np
import pytest

import data_gen  # noqa: F401 - registers the environments
from data_gen.streams import SlotStreams, make_seeds
from data_gen.tasks import Tasks
from data_gen.tasks.base import sample_actions
from data_gen.tasks.control.acrobot import Acrobot
from data_gen.tasks.control.cart_pole import CartPole
from data_gen.tasks.control.pendulum import Pendulum
from icrl.support.errors import UserError

GYMNASIUM = {CartPole: "CartPole-v1", Pendulum: "Pendulum-v1", Acrobot: "Acrobot-v1"}
FAMILIES = list(GYMNASIUM)
CONSTANTS = [(family, name) for family in FAMILIES for name in family.DEFAULTS]


def with_defaults(family, count: int = 1, **changed) -> Tasks:
    """`count` tasks with default constants, except for those in `changed`."""
    return Tasks({name: np.full(count, changed.get(name, value)) for name, value in family.DEFAULTS.items()})


def gymnasium_env(family, task: Tasks) -> gymnasium.Env:
    """Gymnasium's environment with the constants of a task."""
    env = gymnasium.make(GYMNASIUM[family]).unwrapped
    env.reset(seed=0)
    for name in task:
        attribute = name.upper() if family is Acrobot else name
        assert hasattr(env, attribute)
        setattr(env, attribute, float(task[name][0]))
    if family is CartPole:  # values that the constructor derives from the constants
        env.total_mass = env.masspole + env.masscart
        env.polemass_length = env.masspole * env.length
    return env


def assert_same_episodes(family, tasks: Tasks, policy=None, same_state: bool = False) -> list[int]:
    """Runs one episode per slot beside Gymnasium's environments, and returns the lengths of the episodes.

    Args:
        policy: envs -> actions; uniformly random if None.
        same_state: puts Gymnasium's environments into the slots' states before each step.
    """
    envs, streams = family.make_vec(tasks), SlotStreams(make_seeds(len(tasks), 1))
    envs.reset(seed=make_seeds(len(tasks), 0))
    theirs = [gymnasium_env(type(family), tasks.take([slot])) for slot in range(len(tasks))]
    for slot, env in enumerate(theirs):
        env.state = envs.motion[:, slot].copy()
    lengths = [0] * len(tasks)
    running = set(range(len(tasks)))
    while running:
        before = envs.motion.copy()
        actions = policy(envs) if policy else sample_actions(family.action_space, streams)
        observation, reward, terminated, truncated, infos = envs.step(actions)
        arrived = infos.get("final_obs", observation)
        for slot in sorted(running):
            if same_state:
                theirs[slot].state = before[:, slot]
            seen, earned, over, *_ = theirs[slot].step(actions[slot])
            np.testing.assert_allclose(arrived[slot], seen, rtol=1e-6, atol=1e-6)
            assert reward[slot] == pytest.approx(earned, rel=1e-6, abs=1e-6)
            assert terminated[slot] == over
            lengths[slot] += 1
            if over or truncated[slot]:
                running.remove(slot)
    return lengths


@pytest.mark.parametrize("family", [CartPole, Pendulum])
def test_default_physics_give_gymnasiums_episodes(family):
    assert_same_episodes(family(), with_defaults(family, 4))


def test_a_balanced_default_cart_pole_equals_gymnasiums_up_to_the_time_limit():
    lengths = assert_same_episodes(CartPole(), with_defaults(CartPole, 2), lambda envs: envs.optimal_action())
    assert lengths == [500, 500]


def test_a_default_acrobot_moves_like_gymnasiums_from_every_state_of_whole_episodes():
    """Both start each step from the same state: the acrobot is chaotic and amplifies rounding within seconds."""

    def pump(envs):  # torque along the joint's motion swings the acrobot up
        return 1 + np.sign(envs.motion[3]).astype(int)

    assert_same_episodes(Acrobot(episode_length=150), with_defaults(Acrobot, 2), same_state=True)
    lengths = assert_same_episodes(Acrobot(), with_defaults(Acrobot, 3), pump, same_state=True)
    assert max(lengths) < 500  # so termination is compared too


@pytest.mark.parametrize("family", FAMILIES)
def test_every_slot_has_its_own_varied_physics(family):
    distribution = family(episode_length=40)
    assert_same_episodes(distribution, distribution.sample(6, seed=2), same_state=family is Acrobot)


@pytest.mark.parametrize(("family", "name"), CONSTANTS)
def test_each_constant_changes_the_dynamics_as_in_gymnasiums_environment(family, name):
    distribution = family(vary=[name], episode_length=6)
    changed = with_defaults(family, 3, **{name: 1.7 * family.DEFAULTS[name]})
    assert_same_episodes(distribution, changed)
    plain, other = distribution.make_vec(with_defaults(family, 3)), distribution.make_vec(changed)
    actions = sample_actions(distribution.action_space, SlotStreams(make_seeds(3, 1)))
    ends = []
    for envs in (plain, other):
        envs.reset(seed=make_seeds(3, 0))
        envs.step(actions)
        ends.append(envs.motion)
    assert (abs(ends[0] - ends[1]).max(axis=0) > 1e-6).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_factors_are_log_uniform_and_the_other_constants_stay(family):
    varied, *others = family.DEFAULTS
    tasks = family(vary=[varied], low=0.25, high=4).sample(20_000, seed=0)
    factors = np.log2(tasks[varied] / family.DEFAULTS[varied])
    np.testing.assert_allclose(np.quantile(factors, [0, 0.25, 0.5, 0.75, 1]), [-2, -1, 0, 1, 2], atol=0.06)
    for name in others:
        np.testing.assert_array_equal(tasks[name], family.DEFAULTS[name])


def test_the_balancing_policy_holds_every_pole_of_the_default_range_and_so_is_optimal():
    family = CartPole()
    corners = np.stack(np.meshgrid(*[[0.5, 2.0]] * 5), axis=-1).reshape(-1, 5).T
    extreme = {name: value * corner for (name, value), corner in zip(family.DEFAULTS.items(), corners, strict=True)}
    assert (family.optimal_return(Tasks(extreme)) == 500).all()
    tasks = family.sample(300, seed=0)
    assert (family.optimal_return(tasks) == 500).all()
    envs = family.make_vec(tasks)
    envs.reset(seed=make_seeds(300, 0))
    for _ in range(500):
        _, _, terminated, truncated, _ = envs.step(envs.optimal_action())
        assert not terminated.any()
    assert truncated.all()


def test_a_pole_that_the_policy_cannot_hold_has_no_known_optimum():
    family = CartPole(vary=["gravity", "force_mag"], low=0.1, high=10)
    tasks = with_defaults(family, 2)
    tasks["gravity"][1], tasks["force_mag"][1] = 98, 1  # the pole falls faster than the cart can follow
    np.testing.assert_array_equal(family.optimal_return(tasks), [500, np.nan])


def test_an_episode_that_ends_before_a_pole_comes_near_to_falling_has_a_known_optimum():
    physics = {"vary": ["gravity", "force_mag"], "low": 0.1, "high": 10}
    task = with_defaults(CartPole, gravity=98.0, force_mag=1.0)  # nothing can hold this pole
    for length in (1, 2, 500):  # the step in which the pole falls is rewarded, too
        optimum = CartPole(**physics, episode_length=length).optimal_return(task)
        np.testing.assert_array_equal(optimum, length if length == 1 else np.nan)
    heavy = with_defaults(CartPole, gravity=98.0, force_mag=10.0)
    assert CartPole(**physics, episode_length=2).optimal_return(heavy) == 2


def test_the_optimum_of_pendulum_and_acrobot_is_unknown():
    for family in (Pendulum(), Acrobot()):
        assert np.isnan(family.optimal_return(family.sample(3, seed=0))).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_varied_constants_and_their_range_are_checked(family):
    assert family().varies == "dynamics"
    first = next(iter(family.DEFAULTS))
    with pytest.raises(ValueError, match=f"vary: '{first}x' is not a constant; did you mean '{first}'"):
        family(vary=[f"{first}x"])
    for vary in ([], [first, first]):
        with pytest.raises(ValueError, match="must name at least one constant, and each only once"):
            family(vary=vary)
    for low, high in ((2.0, 0.5), (1.0, 1.0)):
        with pytest.raises(ValueError, match=f"low {low} and high {high} leave no range"):
            family(low=low, high=high)
    with pytest.raises(ValueError, match="low"):
        family(low=0)


@pytest.mark.parametrize(("family", "name"), CONSTANTS)
def test_constants_outside_the_family_are_refused(family, name):
    far = with_defaults(family, 2, **{name: 3 * family.DEFAULTS[name]})
    with pytest.raises(UserError, match=f"{name} .* lies outside this family"):
        family().make_vec(far)
    with pytest.raises(UserError, match=f"{name} .* lies outside this family"):
        other = next(constant for constant in family.DEFAULTS if constant != name)
        family(vary=[other]).make_vec(with_defaults(family, 2, **{name: 1.1 * family.DEFAULTS[name]}))


def test_a_task_is_given_by_its_constants():
    env = gymnasium.make("icrl/Pendulum-v0", task={"g": 9.0, "m": 1.5, "l": 0.8})
    assert env.observation_space.contains(env.reset(seed=0)[0])
