"""Agents: algorithms that act and learn in a batch of environments, one per file."""

from data_gen.agents.base import Agent, Spec, TableIndex, Transition

__all__ = ["Agent", "Spec", "TableIndex", "Transition"]
