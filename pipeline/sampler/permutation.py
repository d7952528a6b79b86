"""A keyed permutation of 0..n-1 in constant memory: any place of it is computed directly.

A Feistel network on a grid of a x b places, nearly square and just large enough for n, with cycle walking for
the few places beyond n: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, sections 4 and 5.
The round function is an element of the SplitMix64 stream that the round's key seeds (Steele, Lea and Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014, figure 17). It is good for shuffling, not for secrets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from ..rng import keyed_words

NUM_ROUNDS = 16
"""With fewer, permutations of six things are not equally likely to what 43,200 draws can show."""
MAX_SIZE = 1 << 62
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_ONE, _27, _30, _31, _32 = (np.uint64(number) for number in (1, 27, 30, 31, 32))


@dataclass(frozen=True, slots=True)
class Permutation:
    """A bijection of 0..size-1."""

    size: int
    keys: np.ndarray
    """uint64, shape (NUM_ROUNDS,)."""

    @classmethod
    def keyed(cls, purpose: str, seed: int, epoch: int, size: int) -> Self:
        """Make the permutation of a purpose, a seed and an epoch."""
        return cls(size, keyed_words(purpose, seed, epoch, "", NUM_ROUNDS))

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """Say what stands at some places; int64."""
        return permuted(places, np.uint64(self.size), self.keys)

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Say at which places some values stand; int64."""
        return permuted(values, np.uint64(self.size), self.keys, backwards=True)


def permuted(
    places: np.ndarray, sizes: np.ndarray | np.uint64, keys: np.ndarray, *, backwards: bool = False
) -> np.ndarray:
    """Permute places, each by a permutation of its own if need be.

    Args:
        places: integers, shape (N,); each below its size.
        sizes: uint64, one for all or shape (N,); at most ``MAX_SIZE``.
        keys: uint64, shape (NUM_ROUNDS,) for all or (NUM_ROUNDS, N).
        backwards: go from values to places.

    Returns:
        int64, shape (N,).
    """
    found = _pass(np.asarray(places).astype(np.uint64), sizes, keys, backwards=backwards)
    going = np.flatnonzero(found >= sizes)
    while len(going):  # an orbit that began below n comes back below n
        own_sizes = sizes[going] if isinstance(sizes, np.ndarray) else sizes
        own_keys = keys[:, going] if keys.ndim > 1 else keys
        found[going] = _pass(found[going], own_sizes, own_keys, backwards=backwards)
        going = going[found[going] >= own_sizes]
    return found.astype(np.int64)


def _pass(
    places: np.ndarray, sizes: np.ndarray | np.uint64, keys: np.ndarray, *, backwards: bool
) -> np.ndarray:
    """Go through all rounds once: turn a place's row and its column on the grid alternately, each keyed by the other."""
    # An even side: turning odd sides alone gives only permutations of even sign.
    num_rows = np.ceil(np.sqrt(sizes) / 2).astype(np.uint64) << _ONE
    num_columns = (sizes + num_rows - _ONE) // num_rows
    row, column = np.divmod(places, num_columns)
    for number in reversed(range(NUM_ROUNDS)) if backwards else range(NUM_ROUNDS):
        if number % 2 == 0:
            row = _turn(row, num_rows, mixed(keys[number], column), backwards=backwards)
        else:
            column = _turn(column, num_columns, mixed(keys[number], row), backwards=backwards)
    return np.asarray(row * num_columns + column)


def _turn(values: np.ndarray, side: np.ndarray, bits: np.ndarray, *, backwards: bool) -> np.ndarray:
    """Add random bits, brought below the side, modulo the side; of two candidates the right one is the smaller."""
    bits >>= _32
    bits *= side
    bits >>= _32
    if backwards:
        turned = values - bits  # below zero wraps to a huge number
        return np.asarray(np.minimum(turned, turned + side))
    turned = values + bits
    return np.asarray(np.minimum(turned, turned - side))


def mixed(seeds: np.ndarray | np.uint64, places: np.ndarray) -> np.ndarray:
    """Return elements of SplitMix64 streams: uint64 of (seed, place)."""
    bits = places * _GAMMA + seeds
    bits ^= bits >> _30
    bits *= _FIRST
    bits ^= bits >> _27
    bits *= _SECOND
    bits ^= bits >> _31
    return np.asarray(bits)
