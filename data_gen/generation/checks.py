"""Checks before data is generated: can these agents act on these tasks?"""

import dataclasses
from contextlib import closing
from typing import Any

from gymnasium.vector import VectorEnv

from data_gen.agents.base import Agent
from data_gen.experiment import Experiment, learners_of
from data_gen.interaction import spec_of
from data_gen.storage.columns import check_recordable
from icrl.config.sections import AgentComponent
from icrl.support.device import check_device
from icrl.support.errors import ConfigError, UserError, shown

_MOST_ACTORS = 2**16
"""Most environments that one learner acts in."""

_MOST_STEPS = 2**44
"""Most environment steps of an experiment's data: a year of the fastest family."""


def check_generation(experiment: Experiment) -> None:
    """Raises UserError if the data cannot be generated: spaces, sources, or the number of shards."""
    check_recordable(experiment.family.observation_space, experiment.family.action_space)
    check_sources(experiment)
    shards = experiment.config.data.shards
    steps = experiment.history_steps * len(experiment.learners)
    if steps > _MOST_STEPS:
        raise ConfigError(f"data.episodes: the data would have {steps:,} steps, the limit is {_MOST_STEPS:,}")
    if shards > len(experiment.learners):
        raise ConfigError(f"data.shards: {shards} is more than the {len(experiment.learners)} learners")


def check_sources(experiment: Experiment) -> None:
    """Raises ConfigError, naming the config key, if a source cannot act on these tasks."""
    config = experiment.config
    check_device(config.runtime.device)
    with closing(experiment.family.make_vec(experiment.train_tasks.take([0]))) as envs:
        for index, source in enumerate(config.data.sources):
            check_agent(f"data.sources.{index}", source, envs, experiment.history_steps, experiment.source_device)
        if config.data.optimal_actions and getattr(envs, "optimal_action", None) is None:
            name = config.tasks.name
            raise ConfigError(f"data.optimal_actions: {name!r} does not know its optimal policy; leave this key out")
    used = set(learners_of(config, 1).source.tolist())
    for index in set(range(len(config.data.sources))) - used:
        raise ConfigError(
            f"data.sources.{index}.share: {config.data.sources[index].share} gives this source none of the "
            f"{config.data.histories_per_task} learners per task; raise the share, or data.histories_per_task"
        )


def check_agent(
    key: str,
    component: AgentComponent,
    envs: VectorEnv[Any, Any, Any],
    planned_steps: int,
    device: str,
    lived_steps: int | None = None,
) -> None:
    """Raises ConfigError, naming the config `key`, if an agent cannot act in `envs`, which has one slot.

    `planned_steps` and `lived_steps` are as in `Spec`.
    """
    try:
        agent: Agent = component.build()
        if agent.actors < 1:
            raise UserError(f"actors {agent.actors}: an agent acts in at least one environment")
        if agent.actors > _MOST_ACTORS:
            raise UserError(f"actors {agent.actors}: the limit is {_MOST_ACTORS:,}")
        if agent.first_update > planned_steps:
            raise UserError(
                f"{component.name} makes its first update after {agent.first_update} steps, but a lifetime has "
                f"{planned_steps}: raise data.episodes, or update earlier"
            )
        spec = spec_of(envs, planned_steps, component.sees, device)
        agent.check(dataclasses.replace(spec, lived_steps=lived_steps))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error):  # torch's way to say that memory is full
            raise
        spaces = f"observations of {shown(spec.observation_space)} and actions of {shown(spec.action_space)}"
        raise ConfigError(
            f"{key}: {component.name} does not fit in memory, with {spaces}: choose smaller parameters or spaces"
        ) from error
    except UserError as error:
        raise ConfigError(f"{key}: {error}") from error
