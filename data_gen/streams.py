"""Random numbers that belong to a slot: one stream for every environment or learner of a batch.

With one generator for the whole batch, what slot i draws would depend on who else is in the batch, and data would
depend on how histories are cut into shards. Here every slot has a SplitMix64 stream of its own (Steele, Lea and
Flood 2014, "Fast Splittable Pseudorandom Number Generators"), advanced for all slots by a few array operations.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from icrl.support.errors import UserError

_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)

Seeds = NDArray[np.uint64]


def make_seeds(count: int, *entropy: int) -> Seeds:
    """`count` well-separated seeds, shape (count,), that follow from `entropy` alone; more extend fewer."""
    return np.random.SeedSequence(entropy).generate_state(count, np.uint64).astype(np.uint64, copy=False)


def slot_seeds(count: int, seed: Any) -> Seeds:
    """A seed a slot, shape (count,), from one for each, or from one for all: slot i has that plus i, as in Gymnasium.

    Raises UserError for another number of seeds.
    """
    given = np.asarray(seed)
    if given.dtype.kind not in "iu" or given.shape not in ((), (count,)):
        raise UserError(f"seed {seed!r}: give one whole number, or {count}, one for each slot")
    steps = np.zeros(count) if given.ndim else np.arange(count)
    return np.add(given.astype(np.uint64), steps.astype(np.uint64), dtype=np.uint64)


def derive(seeds: Seeds, purpose: int) -> Seeds:
    """Another seed a slot for another `purpose`, independent of the first for all that matters here."""
    return _mix(seeds + _wrapped((purpose + 1) * int(_MIX_2)))


def hashed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output for each word: a different-looking one for every other input."""
    return _mix(words + np.uint64(_GAMMA))


class SlotStreams:
    """One random stream a slot. Slot i draws the same numbers alone as among many.

    Args:
        seeds: (num_slots,) one seed a slot.
    """

    def __init__(self, seeds: Seeds) -> None:
        self._state = np.array(seeds, dtype=np.uint64)

    def uniform(self, *shape: int) -> NDArray[np.float64]:
        """Uniform numbers in [0, 1), shape (num_slots, *shape)."""
        return self._draw(slice(None), shape)

    def uniform_at(self, slots: NDArray[np.intp], *shape: int) -> NDArray[np.float64]:
        """Uniform numbers for some slots only, shape (len(slots), *shape); the other streams stay where they are."""
        return self._draw(slots, shape)

    def normal(self, *shape: int) -> NDArray[np.float64]:
        """Standard normal numbers, shape (num_slots, *shape), by Box and Muller's transform."""
        return _box_muller(self._draw(slice(None), (2, *shape)))

    def normal_at(self, slots: NDArray[np.intp], *shape: int) -> NDArray[np.float64]:
        """Standard normal numbers for some slots only, shape (len(slots), *shape)."""
        return _box_muller(self._draw(slots, (2, *shape)))

    def _draw(self, slots: slice | NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.float64]:
        count = int(np.prod(shape, dtype=np.int64))
        state = self._state[slots]
        offsets = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GAMMA)
        bits = _mix(state[:, None] + offsets)
        self._state[slots] = state + _wrapped(count * _GAMMA)
        bits >>= np.uint64(11)
        return (bits.astype(np.float64) * 2.0**-53).reshape(len(state), *shape)


def _box_muller(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """(slots, 2, ...) uniform numbers -> (slots, ...) standard normal ones."""
    radius = np.sqrt(-2.0 * np.log1p(-uniform[:, 0]))  # 1 - u lies in (0, 1]
    return radius * np.cos(2.0 * np.pi * uniform[:, 1])


def _wrapped(value: int) -> np.uint64:
    """`value` modulo 2^64, as the array operations here count."""
    return np.uint64(value % 2**64)


def _mix(bits: Seeds) -> Seeds:
    """SplitMix64's output function."""
    bits = bits ^ (bits >> np.uint64(30))
    bits *= _MIX_1
    bits ^= bits >> np.uint64(27)
    bits *= _MIX_2
    bits ^= bits >> np.uint64(31)
    return bits
