"""Samples for Bayesian learners' posteriors: gamma, beta and Dirichlet variables, from one stream per learner."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.streams import SlotStreams, hashed

_BLOCK = 2**15
"""Numbers sampled at once: few enough for a block's dozen temporary arrays to stay in the processor's cache."""

_WORD = 2.0**53
"""Denominator of a stream's uniform numbers: each is an integer divided by this number."""


def gamma(streams: SlotStreams, shape: NDArray[Any]) -> NDArray[np.float64]:
    """Gamma variables of scale 1, shape (num_slots, ...): one per shape parameter.

    Marsaglia and Tsang 2000, "A Simple Method for Generating Gamma Variables": exact, by rejection. Every number has
    its own stream, seeded from one draw of its slot's stream. So the rejections of one number do not affect the others,
    and a slot's stream always advances by one draw. A shape below 1 is raised by one, and the variable is multiplied by
    U^(1 / shape). For a shape of a thousandth or less, the result may be 0.

    Args:
        streams: one stream per slot.
        shape: (num_slots, ...) shape parameters, all above 0.
    """
    alpha = np.asarray(shape, dtype=np.float64)
    word = (streams.uniform() * _WORD).astype(np.uint64) << np.uint64(11)
    offset = hashed(np.arange(alpha[0].size if len(alpha) else 0, dtype=np.uint64))  # spread over all 64-bit words
    seeds, alpha_flat = np.empty((len(alpha), len(offset)), dtype=np.uint64), alpha.reshape(-1)
    np.add(word[:, None], offset, out=seeds)
    seeds_flat, sample = seeds.reshape(-1), np.empty(alpha.size)
    for start in range(0, len(sample), _BLOCK):
        block = slice(start, start + _BLOCK)
        sample[block] = _marsaglia_tsang(SlotStreams(hashed(seeds_flat[block])), alpha_flat[block])
    return sample.reshape(alpha.shape)


def _marsaglia_tsang(streams: SlotStreams, alpha: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) gamma variables of (n,) shape parameters, from n streams."""
    small = np.flatnonzero(alpha < 1)
    if len(small):
        alpha = alpha.copy()
        alpha[small] += 1
    d = alpha - 1 / 3
    c = 1 / np.sqrt(9 * d)
    x, u = streams.normal(), 1 - streams.uniform()  # u lies in (0, 1] and has a logarithm
    v = 1 + c * x
    v = v * v * v
    # The squeeze test accepts all but a few hundredths of the numbers; only the rest need logarithms.
    doubtful = np.flatnonzero((v <= 0) | (u >= 1 - 0.0331 * np.square(np.square(x))))
    while len(doubtful):
        positive = v[doubtful] > 0
        left, value = d[doubtful], np.where(positive, v[doubtful], 1.0)
        bound = 0.5 * np.square(x[doubtful]) + left * (1 - value + np.log(value))
        doubtful = doubtful[~(positive & (np.log(u[doubtful]) < bound))]
        # Draw again for the rejected numbers.
        x[doubtful], u[doubtful] = streams.normal_at(doubtful), 1 - streams.uniform_at(doubtful)
        v[doubtful] = (1 + c[doubtful] * x[doubtful]) ** 3
    sample = d * v
    if len(small):
        sample[small] *= (1 - streams.uniform_at(small)) ** (1 / (alpha[small] - 1))
    return sample


def beta(streams: SlotStreams, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Beta(a, b) variables, shape (num_slots, ...) like `a` and `b`: x / (x + y) of two gamma variables."""
    x, y = np.moveaxis(gamma(streams, np.stack([a, b], axis=1)), 1, 0)
    return x / (x + y)


def dirichlet(streams: SlotStreams, concentration: NDArray[Any]) -> NDArray[np.float64]:
    """Dirichlet variables, shape (num_slots, ..., categories) like `concentration`: normalised gamma variables.

    A category with concentration 0 gets probability 0.
    """
    possible = concentration > 0
    variables = np.where(possible, gamma(streams, np.where(possible, concentration, 1.0)), 0.0)
    return variables / variables.sum(axis=-1, keepdims=True)
