"""Random streams of slots: one stream per environment or learner of a batch.

With one generator for the whole batch, the numbers of slot i would depend on the other slots, and data would depend on
how histories are cut into shards. Here every slot has its own SplitMix64 stream (Steele, Lea and Flood 2014, "Fast
Splittable Pseudorandom Number Generators"). A few array operations advance the streams of all slots.
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
    """Well-separated seeds, shape (count,), from `entropy` alone; a higher `count` only appends seeds."""
    return np.random.SeedSequence(entropy).generate_state(count, np.uint64).astype(np.uint64, copy=False)


def slot_seeds(count: int, seed: Any) -> Seeds:
    """One seed per slot, shape (count,), from as many seeds or from one: slot i then gets `seed` + i, as in Gymnasium.

    Raises UserError for another number of seeds, or for seeds that are not integers.
    """
    given = np.asarray(seed)
    if given.dtype.kind not in "iu" or given.shape not in ((), (count,)):
        raise UserError(f"seed {seed!r}: give one integer, or {count}, one per slot")
    offsets = np.zeros(count) if given.ndim else np.arange(count)
    return np.add(given.astype(np.uint64), offsets.astype(np.uint64), dtype=np.uint64)


def derive(seeds: Seeds, purpose: int) -> Seeds:
    """Derived seeds for a `purpose`, one per slot, in practice independent of `seeds` and of other purposes."""
    return _mix(seeds + _wrapped((purpose + 1) * int(_MIX_2)))


def hashed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output for each word; different words give different, unrelated-looking outputs."""
    return _mix(words + np.uint64(_GAMMA))


class SlotStreams:
    """One random stream per slot. A slot draws the same numbers alone and among many slots.

    Args:
        seeds: (num_slots,) one seed per slot.
    """

    def __init__(self, seeds: Seeds) -> None:
        self._state = np.array(seeds, dtype=np.uint64)

    def uniform(self, *shape: int) -> NDArray[np.float64]:
        """Uniform numbers in [0, 1), shape (num_slots, *shape)."""
        return self._draw(slice(None), shape)

    def uniform_at(self, slots: NDArray[np.intp], *shape: int) -> NDArray[np.float64]:
        """Uniform numbers for some slots only, shape (len(slots), *shape); the other streams do not advance."""
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
    """`value` modulo 2^64, like the array operations on uint64."""
    return np.uint64(value % 2**64)


def _mix(bits: Seeds) -> Seeds:
    """SplitMix64's output function."""
    bits = bits ^ (bits >> np.uint64(30))
    bits *= _MIX_1
    bits ^= bits >> np.uint64(27)
    bits *= _MIX_2
    bits ^= bits >> np.uint64(31)
    return bits
