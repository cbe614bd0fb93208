"""The order in which training reads sequences: a pure function of seed and position, nothing to save.

Position p of a run lies in epoch p // n and reads one of n sequences; within an epoch every sequence comes
exactly once. A checkpoint therefore needs one number, the step, and any number of processes may continue it.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDS = 4
SMALL = 256
"""Up to here a permutation is made by sorting. A network over so few values would be slow, since most of its
domain lies outside, and uneven: for n < 10 the chi-square of places over keys was up to 40 times too large."""


def batch_indices(step: int, global_batch_size: int, n: int, seed: int) -> NDArray[np.int64]:
    """Return which of `n` sequences form the global batch at `step` (counted from 0), in order.

    A process takes its contiguous slice of the batch. A batch may reach over the end of an epoch.

    Shapes: (global_batch_size,).
    """
    if step < 0 or global_batch_size < 1 or n < 1:
        raise ValueError(
            f"a batch needs step >= 0, global_batch_size >= 1 and n >= 1, found {step}, {global_batch_size}, {n}"
        )
    first = step * global_batch_size
    positions = np.arange(first, first + global_batch_size, dtype=np.int64)
    epochs = positions // n
    indices = np.empty(global_batch_size, np.int64)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        inside = epochs == epoch
        indices[inside] = permuted(positions[inside] - epoch * n, n, epoch_key(seed, epoch))
    return indices


def epoch_key(seed: int, epoch: int) -> int:
    """Return the 64-bit key of an epoch's permutation; unrelated for any two (seed, epoch)."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{epoch}".encode(), digest_size=8).digest(), "little")


def permuted(positions: NDArray[np.integer[Any]], n: int, key: int) -> NDArray[np.int64]:
    """Map positions in [0, n) to where a permutation of [0, n) chosen by `key` sends them.

    A Feistel network permutes a domain of 4^k >= n values; a value outside [0, n) is permuted again until it
    falls inside ("cycle walking"), which keeps the map one-to-one. Memory is O(len(positions)), whatever n.

    Raises: ValueError for a position outside [0, n).
    Source: Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002; the round function is the
    finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    """
    values = np.asarray(positions)
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < n:
        raise ValueError(f"positions must lie in [0, {n}), found {int(values.min())} to {int(values.max())}")
    if n <= SMALL:  # the mixing function is one-to-one, so there are no ties
        return np.argsort(_mixed(np.arange(n, dtype=np.uint64) + np.uint64(_round_key(key, 0))))[values]
    half_bits = ((n - 1).bit_length() + 1) // 2
    keys = [np.uint64(_round_key(key, index)) for index in range(ROUNDS)]
    result = _feistel(values.astype(np.uint64), half_bits, keys)
    while (outside := result >= n).any():
        result[outside] = _feistel(result[outside], half_bits, keys)
    return result.astype(np.int64)


def _feistel(values: NDArray[np.uint64], half_bits: int, keys: list[np.uint64]) -> NDArray[np.uint64]:
    bits, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right + key) & mask)
    return (left << bits) | right


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _round_key(key: int, index: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{key}/{index}".encode(), digest_size=8).digest(), "little")
