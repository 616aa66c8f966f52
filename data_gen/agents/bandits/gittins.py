"""Gittins indices of Bernoulli arms by dynamic programming: the value of each arm, learning included."""

from functools import lru_cache
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_gen.agents.bandits.arms import BanditAgent, require_beta, require_zero_or_one
from data_gen.agents.base import Spec, Transition
from data_gen.streams import Seeds
from icrl.config.components import component
from icrl.support.errors import UserError

GRID = 500
"""Number of gaps in the grid of sure wages that every state is compared with; within a gap, the point of indifference
is interpolated. In the states of 60 pulls, the indices are within 3.2e-4 of those from a grid six times as fine and
twice the look-ahead, and on average within 4e-5 (1.5e-4 at discount .9999)."""

MOST_LOOKAHEAD = 2000
"""Upper bound of `lookahead`."""

_MOST_PULLS = 2000  # time grows with (pulls + look-ahead)^2: half a minute for this many
_WAGES_AT_ONCE = 50  # few enough for a stage of the recursion to stay in the processor's cache


@component
class Gittins(BanditAgent):
    """Pulls the arm with the highest Gittins index (Gittins 1979, "Bandit Processes and Dynamic Allocation Indices").

    Of all policies, this one earns the most in expectation if rewards are discounted by `discount` for ever and the
    arms' means come from the Beta prior. In a lifetime of n pulls the policy is a heuristic, good if 1 / (1 - discount)
    is close to n. Duan et al. 2016 (Table 1) took the best of several approximations for each n; the counterpart here
    is the best discount.
    """

    discount: Annotated[float, Field(gt=0, lt=1)] = 0.99

    def __post_init__(self) -> None:
        require_beta(self.prior_mean, self.prior_pulls)

    def reset(self, spec: Spec, num_envs: int, seeds: Seeds) -> None:
        super().reset(spec, num_envs, seeds)
        self.successes = np.zeros((num_envs, self.arms), dtype=np.int64)
        self.failures = np.zeros((num_envs, self.arms), dtype=np.int64)
        self._tabulate(max(1, spec.planned_steps))

    def _tabulate(self, pulls: int) -> None:
        """Computes the indices of all states of fewer than `pulls` pulls, and looks up those of the current states."""
        if pulls > _MOST_PULLS:
            raise UserError(f"gittins tabulates at most {_MOST_PULLS:,} pulls, not {pulls:,}: shorten the lifetime")
        a = self.prior_mean * self.prior_pulls
        self.table = gittins_indices(a, self.prior_pulls - a, self.discount, pulls)
        self.index = self.table[self.successes, self.failures]

    def scores(self) -> NDArray[np.float64]:
        return self.index

    def observe(self, transition: Transition) -> None:
        require_zero_or_one(transition.reward, "gittins", "use thompson with posterior normal, or ucb1")
        super().observe(transition)
        arm, won = transition.action - self.first_arm, transition.reward.astype(np.int64)
        self.successes[self.row, arm] += won
        self.failures[self.row, arm] += 1 - won
        if self.steps >= len(self.table):  # the lifetime is longer than planned
            self._tabulate(max(self.steps + 1, min(2 * self.steps, _MOST_PULLS)))
        self.index[self.row, arm] = self.table[self.successes[self.row, arm], self.failures[self.row, arm]]


@lru_cache(maxsize=16)
def gittins_indices(a: float, b: float, discount: float, pulls: int) -> NDArray[np.float64]:
    """Gittins indices of a Bernoulli arm with the prior Beta(a, b), in every state of fewer than `pulls` pulls.

    The index is the sure wage w for which retiring on w is as good as another pull (Gittins, Glazebrook and Weber 2011,
    "Multi-armed Bandit Allocation Indices", sections 2.4 and 8.4). For every wage of a grid, the stopping problem is
    solved backwards over the posterior means m = (a + s) / (a + b + s + f), with values per step:

        pull(s, f) = (1 - discount) m + discount (m value(s + 1, f) + (1 - m) value(s, f + 1))
        value(s, f) = max(w, pull(s, f)); at the end of the look-ahead the arm counts as known: max(w, m)

    and the wage where pull(s, f) = w is interpolated.

    Returns:
        (pulls, pulls) read-only array: at [s, f] the index after s successes and f failures, NaN if s + f >= pulls.
    """
    wages = np.sin(np.linspace(0, np.pi / 2, GRID + 1)) ** 2  # denser near 0 and 1, where the indices are
    table = np.full((pulls, pulls), np.nan)
    for start in range(0, GRID, _WAGES_AT_ONCE):
        # One wage more than the stride, so that every gap of the grid lies within one call.
        _interpolate_between(wages[start : start + _WAGES_AT_ONCE + 1], a, b, discount, table)
    table.flags.writeable = False
    return table


def _interpolate_between(
    wages: NDArray[np.float64], a: float, b: float, discount: float, table: NDArray[np.float64]
) -> None:
    """Solves the stopping problem for some wages, and writes the indices between the first and last into `table`."""
    pulls = len(table)
    last = pulls + lookahead(discount)
    successes = np.arange(last + 1)
    value = np.maximum(wages, ((a + successes) / (a + b + last))[:, None])  # (states after `last` pulls, wages)
    for pulled in range(last - 1, -1, -1):
        mean = ((a + successes[: pulled + 1]) / (a + b + pulled))[:, None]
        pull = (discount * mean) * value[1:]
        pull += (discount * (1 - mean)) * value[:-1]
        pull += (1 - discount) * mean
        if pulled < pulls:
            gain = pull - wages  # falls as the wage rises
            first = (gain > 0).sum(axis=1)  # the first wage that is at least as good as pulling
            s = np.flatnonzero((first > 0) & (first < len(wages)))
            upper = first[s]
            below, above = gain[s, upper - 1], gain[s, upper]
            fraction = below / (below - above)
            table[s, pulled - s] = wages[upper - 1] + fraction * (wages[upper] - wages[upper - 1])
        value = np.maximum(pull, wages, out=pull)


def lookahead(discount: float) -> int:
    """Pulls beyond the table after which an arm counts as known: five times the discount's horizon, within a bound."""
    return min(MOST_LOOKAHEAD, round(5 / (1 - discount)))
