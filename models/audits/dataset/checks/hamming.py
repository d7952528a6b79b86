"""Pairs of 64-bit hashes that differ in few bits, found without comparing all pairs.

Multi-index hashing (Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012): of m
parts of two hashes that differ in at most r bits, one part differs in at most ``r // m`` bits. Each part is looked up with
all changes of so many bits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_BITS = 64
CHUNK_PAIRS = 2_000_000
"""Candidate pairs that are compared at once."""
MIN_PARTS, MAX_PARTS = 3, 8

Pairs = tuple["NDArray[np.intp]", "NDArray[np.intp]"]
"""First and second rows of pairs."""


def pack_hashes(hashes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return hashes (N, 8) of bytes as one number each."""
    return np.ascontiguousarray(hashes[:, :8]).view(">u8").ravel().astype(np.uint64)


def distances(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Return the number of bits in which hashes differ."""
    return np.asarray(np.bitwise_count(first ^ second), np.uint8)


def near_pairs(hashes: NDArray[np.uint64], radius: int) -> Iterator[Pairs]:
    """Yield each pair of rows whose hashes differ in at most ``radius`` bits once, in chunks of bounded size.

    Rows with equal hashes are pairs too; many such rows should be reduced to one before.

    Args:
        hashes: shape (N,).
        radius: number of bits, 0 to 63.
    """
    num_parts = _num_parts(len(hashes))
    parts = list(_parts(hashes, num_parts))
    for number, (values, bits) in enumerate(parts):
        for first, second in _candidates(values, bits, radius // num_parts):
            is_new = distances(hashes[first], hashes[second]) <= radius
            one, other = np.minimum(first, second)[is_new], np.maximum(first, second)[is_new]
            is_new = np.ones(len(one), np.bool_)  # an earlier part did not find the pair
            for earlier, _ in parts[:number]:
                is_new &= np.bitwise_count(earlier[one] ^ earlier[other]) > radius // num_parts
            if is_new.any():
                yield one[is_new], other[is_new]


def _num_parts(num_hashes: int) -> int:
    """Return a number of parts for which a part has about ``log2(N)`` bits (Norouzi et al., section 3.2)."""
    bits = math.log2(max(num_hashes, 2))
    return int(np.clip(round(NUM_BITS / bits), MIN_PARTS, MAX_PARTS))


def _parts(hashes: NDArray[np.uint64], num_parts: int) -> Iterator[tuple[NDArray[np.uint32], int]]:
    ends = [NUM_BITS * number // num_parts for number in range(num_parts + 1)]
    for start, end in itertools.pairwise(ends):
        mask = np.uint64((1 << (end - start)) - 1)
        yield ((hashes >> np.uint64(start)) & mask).astype(np.uint32), end - start


def _candidates(values: NDArray[np.uint32], num_bits: int, radius: int) -> Iterator[Pairs]:
    """Yield pairs of rows whose values of ``num_bits`` bits differ in at most ``radius`` bits, each once."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.zeros((1 << num_bits) + 1, np.int64)
    np.cumsum(np.bincount(values, minlength=1 << num_bits), out=starts[1:])
    yield from _expand(order, np.arange(1, len(order) + 1), starts[ordered + 1], order)
    for count in range(1, radius + 1):
        for changed in itertools.combinations(range(num_bits), count):
            other = ordered ^ np.uint32(sum(1 << bit for bit in changed))
            asks = np.flatnonzero((ordered < other) & (starts[other + 1] > starts[other]))
            yield from _expand(order[asks], starts[other[asks]], starts[other[asks] + 1], order)


def _expand(
    rows: NDArray[np.intp], starts: NDArray[Any], ends: NDArray[Any], order: NDArray[np.intp]
) -> Iterator[Pairs]:
    """Yield pairs of each row with ``order[start:end]``, in chunks."""
    counts = np.maximum(ends - starts, 0)
    totals = np.cumsum(counts)
    first = 0
    while first < len(rows):
        done = int(totals[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(totals, done + CHUNK_PAIRS, side="right")))
        taken = counts[first:last]
        within = np.arange(int(taken.sum())) - np.repeat(totals[first:last] - taken - done, taken)
        yield np.repeat(rows[first:last], taken), order[np.repeat(starts[first:last], taken) + within]
        first = last
