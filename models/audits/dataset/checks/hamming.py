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
MAX_ROUNDS = 4
"""Rows with the same value of a part that are paired one after another, before those of more are expanded."""

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
        order = np.argsort(values, kind="stable")
        ordered = hashes[order]
        for one, other in _candidates(values[order], bits, radius // num_parts):
            near = np.flatnonzero(distances(ordered[one], ordered[other]) <= radius)
            first, second = order[one[near]], order[other[near]]
            is_new = np.ones(len(near), np.bool_)  # an earlier part did not find the pair
            for earlier, _ in parts[:number]:
                is_new &= np.bitwise_count(earlier[first] ^ earlier[second]) > radius // num_parts
            if is_new.any():
                yield np.minimum(first, second)[is_new], np.maximum(first, second)[is_new]


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
    """Yield pairs of places in sorted values of ``num_bits`` bits that differ in at most ``radius`` bits, each once."""
    places = np.arange(len(values))
    starts = np.zeros((1 << num_bits) + 1, np.int64)
    np.cumsum(np.bincount(values, minlength=1 << num_bits), out=starts[1:])
    yield from _expand(places, places + 1, starts[values + 1])
    small = starts.astype(np.int32) if len(values) < 1 << 31 else starts  # rather in the processor's cache
    for count in range(1, radius + 1):
        for changed in itertools.combinations(range(num_bits), count):
            places = np.flatnonzero((values & np.uint32(1 << changed[-1])) == 0)
            other = values[places] ^ np.uint32(sum(1 << bit for bit in changed))
            yield from _pairs_with(places, small[other], small[other + 1])


def _pairs_with(places: NDArray[np.intp], starts: NDArray[Any], ends: NDArray[Any]) -> Iterator[Pairs]:
    """Yield pairs of each place with ``start`` to ``end - 1``; few each are expected, and are paired one after another."""
    for _ in range(MAX_ROUNDS):
        has_more = np.flatnonzero(starts < ends)
        if not len(has_more):
            return
        places, starts, ends = places[has_more], starts[has_more], ends[has_more]
        yield places, starts.astype(np.intp)
        starts = starts + 1
    yield from _expand(places, starts, ends)


def _expand(places: NDArray[np.intp], starts: NDArray[Any], ends: NDArray[Any]) -> Iterator[Pairs]:
    """Yield pairs of each place with ``start`` to ``end - 1``, in chunks."""
    counts = np.maximum(ends - starts, 0)
    totals = np.cumsum(counts, dtype=np.int64)
    first = 0
    while first < len(places):
        done = int(totals[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(totals, done + CHUNK_PAIRS, side="right")))
        taken = counts[first:last]
        within = np.arange(int(taken.sum())) - np.repeat(totals[first:last] - taken - done, taken)
        yield np.repeat(places[first:last], taken), np.repeat(starts[first:last], taken) + within
        first = last
