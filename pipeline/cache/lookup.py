"""Lookup of cached images: sorted keys of all shards with batched search."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import numpy as np

from .shard import Shard

NOT_FOUND = -1


class CacheLookup:
    """Immutable lookup of the images in a set of shards."""

    def __init__(self, shards: Iterable[Shard] = ()) -> None:
        self.shards = tuple(shards)
        none = [np.empty((0, 2), "<u8")]
        keys = np.concatenate([shard.keys for shard in self.shards] or none)
        self._order = np.argsort(keys[:, 0], kind="stable")
        self._low = keys[self._order, 0]
        self._high = keys[self._order, 1]
        self._first = np.cumsum([0, *map(len, self.shards)])

    def __len__(self) -> int:
        return len(self._low)

    def search(self, keys: np.ndarray) -> list[tuple[int, int]]:
        """Look up keys, shape (n, 2).

        Returns:
            For each key the index of its shard and of the image in it; ``(NOT_FOUND, NOT_FOUND)`` if missing.
        """
        if not len(self):
            return [(NOT_FOUND, NOT_FOUND)] * len(keys)
        places = np.minimum(np.searchsorted(self._low, keys[:, 0]), len(self) - 1)
        there = (self._low[places] == keys[:, 0]) & (self._high[places] == keys[:, 1])
        numbers = self._order[places]
        shards = np.searchsorted(self._first, numbers, side="right") - 1
        inside = numbers - self._first[shards]
        found = zip(
            np.where(there, shards, NOT_FOUND).tolist(),
            np.where(there, inside, NOT_FOUND).tolist(),
            strict=True,
        )
        return list(found)

    def contains(self, keys: np.ndarray) -> list[bool]:
        """Return which keys are present."""
        return [shard != NOT_FOUND for shard, _ in self.search(keys)]

    def with_shards(self, more: Iterable[Shard]) -> Self:
        """Return a lookup with additional shards."""
        return type(self)((*self.shards, *more))

    def without(self, shard: Shard) -> Self:
        """Return a lookup without a shard."""
        return type(self)(one for one in self.shards if one is not shard)
