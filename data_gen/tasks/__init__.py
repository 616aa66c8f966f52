"""Task distributions, one file per family."""

from data_gen.tasks.base import TaskDistribution, Tasks
from data_gen.tasks.vector import TaskEnv, TaskVectorEnv

__all__ = ["TaskDistribution", "TaskEnv", "TaskVectorEnv", "Tasks"]
