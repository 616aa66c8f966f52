"""The interaction loop, which runs any agent in any vector environment and records it, to generate and to evaluate."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from data_gen.agents.base import Agent, Spec, Transition
from data_gen.spaces import column_name, leaves, map_leaves, storage_type
from data_gen.streams import Seeds, derive
from data_gen.values import ValueChecks, check_learners, check_recorded
from icrl.support.errors import UserError


@dataclass(frozen=True)
class Histories:
    """Learning histories: a batch of recorded lifetimes, `lived_steps` steps each, episodes one after another.

    - `observation`: (histories, steps, ...) in compact types; a tree of arrays if the space is a Dict or a Tuple.
    - `action`: (histories, steps, ...) in a compact type.
    - `reward`: (histories, steps) float32.
    - `terminated`, `truncated`: (histories, steps) bool, True if step t ended its episode in this way.
    - `optimal_action`: action of the optimal policy in every step, in the form of `action`; None unless requested.
    - `success`: (histories, steps) float32, at the last step of each episode 1 if the episode succeeded, 0 if it did
      not, and NaN if the environment does not say; NaN at other steps; None unless requested. It is not stored.
    """

    observation: Any
    action: NDArray[Any]
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    optimal_action: NDArray[Any] | None = None
    success: NDArray[np.float32] | None = None

    def columns(self) -> dict[str, NDArray[Any]]:
        """Arrays by the names that storage gives them: `observation`, or `observation.image` and others for a tree."""
        values = {name: column for name, column in vars(self).items() if column is not None and name != "success"}
        seen = leaves(values.pop("observation"))
        return {column_name("observation", path): leaf for path, leaf in seen.items()} | values

    @property
    def ended(self) -> NDArray[np.bool_]:
        """(histories, steps) True if step t was the last of its episode, terminated or truncated."""
        return self.terminated | self.truncated


def interact(
    agent: Agent,
    envs: VectorEnv[Any, Any, Any],
    lived_steps: int,
    seeds: Seeds,
    planned_steps: int | None = None,
    sees: str = "observation",
    recorded: slice = slice(None),
    optimal_actions: bool = False,
    successes: bool = False,
    device: str = "cpu",
    progress: Callable[[int], object] = lambda steps: None,
    check_values: bool = True,
    slot_name: Callable[[int], str] = "slot {}".format,
) -> Histories:
    """Resets `agent`, runs it for `lived_steps` steps in `envs`, and records every step.

    Args:
        agent: reset here; nothing from an earlier run remains.
        envs: a vector environment in SAME_STEP mode; the environments of a learner with several actors are neighbours.
        lived_steps: steps in every environment.
        seeds: (num_learners,) one seed per learner, for its own and its environments' randomness.
        planned_steps: the lifetime that the agent's schedules run over, `lived_steps` by default.
        sees: input of the agent, `observation` or the environments' `state`; the observation is recorded.
        recorded: the environments to record.
        optimal_actions: if True, also record the optimal policy's action in every step.
        successes: if True, also record which episodes succeed, as far as the environments say so.
        device: device that the agent's tensor programs run on.
        progress: called after each step with the number of environment steps just made.
        check_values: if True, check every value that the environments and the agent give, as `data_gen.values` says.
        slot_name: the name of an environment in errors, such as that of its task.

    Raises UserError if the environments, the seeds and these settings do not fit each other, and for the first value
    that is not in its space.
    """
    if envs.metadata.get("autoreset_mode") is not AutoresetMode.SAME_STEP:
        raise UserError(f"{type(envs).__name__} needs autoreset_mode SAME_STEP; NEXT_STEP would record phantom steps")
    num_envs, shown_state, actors = envs.num_envs, sees == "state", agent.actors
    if num_envs != len(seeds) * actors:
        raise UserError(f"{num_envs} environments do not fit {len(seeds)} learners with {actors} actors each")
    spec = dataclasses.replace(spec_of(envs, planned_steps or lived_steps, sees, device), lived_steps=lived_steps)
    if optimal_actions and spec.optimal_action is None:
        raise UserError(f"{type(envs).__name__} does not know its optimal policy: do not record optimal actions")

    state_space = spec.observation_space if shown_state else None
    checks = ValueChecks(envs, agent, slot_name, state_space) if check_values else None
    if checks and checks.idle:
        checks = None
    if not check_values and hasattr(envs, "trust_values"):
        envs.trust_values()

    # Buffers for the recorded environments.
    kept = len(range(num_envs)[recorded])
    observations = map_leaves(lambda space: _empty(lived_steps, kept, space), envs.single_observation_space)
    observation_rows = leaves(observations)
    actions = _empty(lived_steps, kept, spec.action_space)
    labels = _empty(lived_steps, kept, spec.action_space) if optimal_actions else None
    rewards = np.empty((lived_steps, kept), dtype=np.float32)
    terminations = np.empty((lived_steps, kept), dtype=np.bool_)
    truncations = np.empty((lived_steps, kept), dtype=np.bool_)
    outcomes = np.full((lived_steps, kept), np.nan, dtype=np.float32) if successes else None

    # Every learner's seed gives one seed to the agent and one to each of the learner's environments.
    agent.reset(spec, num_envs, agent_seeds(seeds))
    env_seeds = np.stack([derive(seeds, 1 + actor) for actor in range(actors)], axis=1).reshape(-1)
    observation, _ = envs.reset(seed=env_seeds)  # type: ignore[arg-type]
    shown = envs.state() if shown_state else observation  # type: ignore[attr-defined]
    seen = leaves(observation)
    if checks:
        checks.seen(seen, 0)
        if shown_state:
            checks.seen(leaves(shown), 0, "state")
    # An overflow in a native family is found at the end, and told once.
    quiet = {"over": "ignore", "invalid": "ignore"} if check_values and checks is None else {}
    with np.errstate(**quiet):  # type: ignore[arg-type]
        for step in range(lived_steps):
            if labels is not None and spec.optimal_action is not None:
                optimal = spec.optimal_action()
                if checks:
                    checks.labelled(optimal, step + 1)
                labels[step] = optimal[recorded]
            action = agent.act(shown)
            if checks:
                checks.acted(action, step + 1)
            following, reward, terminated, truncated, infos = envs.step(action)
            next_shown = envs.state() if shown_state else following  # type: ignore[attr-defined]
            next_seen, arrived = leaves(following), next_shown
            if checks:
                checks.rewarded(reward, terminated, truncated, step + 1)
                checks.seen(next_seen, step + 1)
                if shown_state:
                    checks.seen(leaves(next_shown), step + 1, "state")
            if (terminated | truncated).any():
                arrived = infos["final_state" if shown_state else "final_obs"]
                if checks:
                    checks.seen(leaves(arrived), step + 1, sees)
                if outcomes is not None and "success" in infos:
                    outcomes[step] = _outcome(infos["success"], terminated | truncated)[recorded]
            agent.observe(Transition(shown, action, reward, terminated, truncated, arrived))
            for path, rows in observation_rows.items():
                rows[step] = seen[path][recorded]
            actions[step], rewards[step] = action[recorded], reward[recorded]
            terminations[step], truncations[step] = terminated[recorded], truncated[recorded]
            seen, shown = next_seen, next_shown
            progress(num_envs)
    # The loop writes whole rows (steps, envs), which is fast; readers want (envs, steps).
    histories = Histories(
        map_leaves(_by_history, observations),
        _by_history(actions),
        _by_history(rewards),
        _by_history(terminations),
        _by_history(truncations),
        None if labels is None else _by_history(labels),
        None if outcomes is None else _by_history(outcomes),
    )
    if check_values and getattr(envs, "native", False):
        check_recorded(histories.columns(), lambda row: slot_name(range(num_envs)[recorded][row]))
    if check_values and isinstance(agent, Agent):
        check_learners(agent.diverged(), type(agent).__name__, lambda learner: slot_name(learner * actors))
    return histories


def agent_seeds(seeds: Seeds) -> Seeds:
    """Seeds of the learners themselves, derived from the seeds given to `interact`."""
    return derive(seeds, 0)


def spec_of(envs: VectorEnv[Any, Any, Any], planned_steps: int, sees: str = "observation", device: str = "cpu") -> Spec:
    """Description of `envs` and a lifetime of `planned_steps` steps for an agent.

    Raises UserError if `sees` is `state` and the environments do not show their state.
    """
    space = envs.single_observation_space
    if sees == "state":
        if not (hasattr(envs, "single_state_space") and callable(getattr(envs, "state", None))):
            raise UserError(f"sees: state: {type(envs).__name__} does not show its state; remove `sees`")
        space = envs.single_state_space
    return Spec(
        observation_space=space,
        action_space=envs.single_action_space,
        planned_steps=planned_steps,
        optimal_action=getattr(envs, "optimal_action", None),
        episode_length=getattr(envs, "episode_length", None),
        device=device,
    )


def _empty(steps: int, num_envs: int, space: gymnasium.Space[Any]) -> NDArray[Any]:
    shape, dtype = storage_type(space)
    return np.empty((steps, num_envs, *shape), dtype=dtype)


def _outcome(given: Any, ended: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Success of the episodes that have just ended, (num_envs,); NaN in other slots. Raises UserError for others."""
    success = np.asarray(given, dtype=np.float32)
    if success.shape != ended.shape:
        raise UserError(f'infos["success"] has shape {success.shape}; give one value per environment, {ended.shape}')
    return np.where(ended, success, np.float32(np.nan))


def _by_history(rows: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(rows.swapaxes(0, 1))
