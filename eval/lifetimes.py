"""Lifetimes of one agent on the tasks of one set, all tasks and seeds at once, with everything that figures need."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ad_model.tokens import observation_columns
from data_gen.agents.base import Agent
from data_gen.experiment import Experiment
from data_gen.interaction import Histories, interact
from data_gen.returns import episode_returns, final_returns
from data_gen.streams import make_seeds
from data_gen.tasks.base import Tasks
from data_gen.tasks.sets import TaskSet
from icrl.run.purpose import Purpose

FINAL_SHARE = 0.1
"""Last part of a lifetime's steps: `final_steps` averages the episodes that end in this part. The part is at least as
long as one full-length episode, so that an episode ends in it."""

_PICTURED_TASKS = 6


@dataclass(frozen=True)
class Lifetimes:
    """Lifetimes of one agent on one task set. Arrays are (task, seed, episode), as long as the longest lifetime.

    Where episodes end early, lifetimes have different numbers of episodes, and the returns of missing episodes are NaN.
    Agents are compared by their first `episodes` episodes, which every lifetime has.
    """

    episodes: int

    returns: NDArray[np.float64]
    steps: NDArray[np.int64]
    """Environment steps taken by the end of the episode, over all actors."""
    final_steps: NDArray[np.float64]
    """(task, seed) mean return of the episodes that ended in the last tenth of the steps; NaN where none did."""
    success: NDArray[np.float64]
    """1 for an episode that succeeded, 0 for one that did not, NaN where the environment does not say."""
    earned: NDArray[np.float64]
    """Return of each episode in expected rewards where the family knows them, else in those that came."""
    seconds: float
    environment_steps: int
    paths: dict[str, NDArray[Any]]
    """First and last episode of a few tasks, for pictures."""
    histories: Histories | None = None
    """Every step, if it is kept."""

    def first(self, values: NDArray[Any]) -> NDArray[Any]:
        """The part of a (task, seed, episode) array that is compared."""
        return values[:, :, : self.episodes]

    @property
    def compared(self) -> NDArray[np.float64]:
        """Returns of the first `episodes` episodes, (task, seed, episode)."""
        return self.first(self.returns)


def run_lifetimes(
    experiment: Experiment,
    task_set: TaskSet,
    name: str,
    agent: Agent,
    sees: str,
    planned_episodes: int,
    keep: bool = False,
) -> Lifetimes:
    """Runs an agent on every task with every seed at once.

    For a learner with several actors, the episodes are those of the first actor, and the steps those of all actors.

    Args:
        experiment: gives seeds and lengths.
        task_set: the tasks and their family.
        name: the agent's name, for the progress bar.
        agent: the agent, which is reset first.
        sees: `observation` or `state`, as in `interact`.
        planned_episodes: the lifetime that the agent's schedules run over, in full-length episodes.
        keep: keep every step in the result.
    """
    config, family, tasks = experiment.config, task_set.family, task_set.tasks
    seeds, episodes, actors = config.evaluation.seeds, config.evaluation.episodes, agent.actors
    lifetimes = len(tasks) * seeds
    lived_steps = episodes * family.episode_length
    total = lifetimes * actors * lived_steps
    # One slot per task, seed and actor; a learner's actors are neighbours.
    envs = family.make_vec(tasks.take(np.repeat(np.arange(len(tasks)), seeds * actors)))
    description = f"{name} on {task_set.name} tasks"
    started = time.perf_counter()
    with tqdm(total=total, unit=" steps", unit_scale=True, desc=f"{description:34}", dynamic_ncols=True) as bar:
        histories = interact(
            agent,
            envs,
            lived_steps,
            make_seeds(lifetimes, config.seed_for("evaluation"), Purpose.EVALUATION),
            planned_steps=planned_episodes * family.episode_length,
            sees=sees,
            recorded=slice(None, None, actors),
            successes=True,
            device=experiment.source_device,
            progress=bar.update,
            check_values=config.runtime.check_values,
            slot_name=lambda slot: f"{task_set.name} task {slot // (seeds * actors)}",
        )
    envs.close()
    seconds = time.perf_counter() - started
    # Ends of the episodes: a stable sort puts the steps that end an episode first, in order.
    most = int(histories.ended.sum(axis=1).max())
    ends = np.argsort(~histories.ended, axis=1, kind="stable")[:, :most] + 1
    success = np.take_along_axis(np.asarray(histories.success, dtype=np.float64), ends - 1, axis=1)
    expected = family.expected_rewards(
        tasks.take(np.repeat(np.arange(len(tasks)), seeds)), histories.observation, histories.action
    )
    rewards = histories.reward if expected is None else expected
    by_task = "(task seed) episode -> task seed episode"
    final = final_returns(histories.reward, histories.ended, max(FINAL_SHARE, 1 / episodes))
    return Lifetimes(
        episodes=episodes,
        returns=rearrange(episode_returns(histories.reward, histories.ended, most), by_task, seed=seeds),
        steps=rearrange(ends * actors, by_task, seed=seeds),
        final_steps=rearrange(final, "(task seed) -> task seed", seed=seeds),
        success=rearrange(success, by_task, seed=seeds),
        earned=rearrange(episode_returns(rewards, histories.ended, most), by_task, seed=seeds),
        seconds=seconds,
        environment_steps=total,
        paths=_paths(histories, ends[:, :episodes], seeds, min(len(tasks), _PICTURED_TASKS), tasks),
        histories=histories if keep else None,
    )


def _paths(
    histories: Histories, ends: NDArray[np.int64], seeds: int, count: int, tasks: Tasks
) -> dict[str, NDArray[Any]]:
    """First and last episode of the first `count` tasks, (task, 2, steps, ...), padded; `length` (task, 2)."""
    slots = np.arange(count) * seeds  # the first seed of each task
    last = ends.shape[1] - 1
    starts = np.stack([np.zeros(count, int), ends[slots, last - 1] if last else np.zeros(count, int)], axis=1)
    lengths = np.stack([ends[slots, 0], ends[slots, last] - starts[:, 1]], axis=1)
    steps = np.minimum(starts[:, :, None] + np.arange(lengths.max()), histories.reward.shape[1] - 1)
    slot = slots[:, None, None]
    return {
        **{name: leaf[slot, steps] for name, leaf in observation_columns(histories.observation).items()},
        "reward": histories.reward[slot, steps],
        "length": lengths,
        **{f"task_{name}": tasks[name][:count] for name in tasks},
    }
