"""Forwards `episode_returns` from `data_gen.returns`: model cards that were pushed earlier import it from here."""

from data_gen.returns import episode_returns

__all__ = ["episode_returns"]
