"""Features of one split in one view: stored on disk, or in memory where there is no room; as batches of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ...pipeline.batch.annotations import collate_label_sets
from ...pipeline.batch.batch import Batch
from ...pipeline.cache.codec import CachedImage
from ...pipeline.cache.key import CacheKeys, FileVersions
from ...pipeline.cache.store import PixelCache
from ...pipeline.errors import RunError
from ...pipeline.index.mmap_index import ChunkedTable
from ...pipeline.plan.view import View
from ...pipeline.sampler.schedule import BatchSpec, Schedule, replacements
from ...pipeline.text import quoted
from ..training.evaluation import parameter_dtype
from ..training.train_batch import Targets, TrainBatch, fill_ignored

if TYPE_CHECKING:
    from .feature_cache import FeatureCache

FLUSH_BYTES = 64 << 20
"""Features are held in memory until so many are computed, then written."""
CHUNK_ROWS = 4096
_HEADER = 4
"""int32 values before the features of an image: the number of dimensions and up to three sizes."""


@dataclass
class SplitFeatures:
    """Features of the images of one split in one view; created by ``FeatureCache.open``."""

    cache: FeatureCache
    rows: np.ndarray
    """Rows of the index."""
    view: View
    keys: CacheKeys
    store: PixelCache | None
    bad: set[int] = field(default_factory=set)
    """Rows of images that cannot be used."""
    _memory: dict[int, np.ndarray] = field(default_factory=dict)
    """Features that the store does not have, by row."""
    _shape: tuple[int, ...] | None = None
    """Shape of the features of an image."""

    def compute_missing(self) -> None:
        """Compute the features that are neither stored nor in memory; this rank's share first."""
        dist = self.cache.dist
        missing = self._missing(self.rows)
        if dist.num_ranks > 1:
            self._compute(missing[dist.rank :: dist.num_ranks])
            is_bad = torch.from_numpy(np.isin(self.rows, list(self.bad)).astype(np.int64))
            self.bad.update(self.rows[dist.all_reduce(is_bad).numpy() > 0].tolist())
            if self.store is not None:
                self.store.publish()  # finds what the other ranks have written
            missing = self._missing(self.rows)
        self._compute(missing)
        if self.store is not None:
            self.store.close()

    def take(self, rows: np.ndarray) -> torch.Tensor:
        """Return the features of some images, none of which is ``bad``, on the device and in the precision of the network."""
        found = self._read(rows)
        while lost := [row for row, one in zip(rows.tolist(), found, strict=True) if one is None]:
            self._compute(np.unique(lost), keep=True)  # their shard is damaged or was deleted
            if not self.bad.isdisjoint(lost):
                raise RunError(
                    "features: expected images that could be read before, got some that no longer can; run again"
                )
            found = self._read(rows)
        features = torch.from_numpy(np.stack([one for one in found if one is not None]))
        if features.ndim == 4:
            features = features.permute(0, 3, 1, 2)
        return features.to(self.cache.device, parameter_dtype(self.cache.network.model))

    def labelled(self) -> tuple[np.ndarray, np.ndarray]:
        """Return features and labels of all labelled images that can be used, in the order of the index."""
        labels = self.cache.index.table["label"].to_numpy()
        rows = self.rows[(labels[self.rows] >= 0) & ~np.isin(self.rows, list(self.bad))]
        parts = [
            self.take(rows[first : first + CHUNK_ROWS]).cpu() for first in range(0, len(rows), CHUNK_ROWS)
        ]
        if not parts:
            raise RunError(
                "features: expected labelled images that can be read, got none; see quarantine.jsonl"
            )
        return torch.cat(parts).numpy(), labels[rows].astype(np.int64)

    def batches(
        self, view: View, targets: Callable[[Batch], Targets], first: int = 0
    ) -> Iterator[TrainBatch]:
        """Yield the batches of a view of one epoch as a feed of images would: same rows, replacements and padding.

        Args:
            view: split, order and number of the epoch; the plan's sampling applies if it is augmented.
            targets: makes targets of the labels of a batch.
            first: number of the first batch.
        """
        cache, dist = self.cache, self.cache.dist
        schedule = Schedule.of(cache.plan, dist.local_view(view), cache.index, self.rows)
        for spec in schedule.batches(first):
            usable = self._replace_bad(spec)
            if len(usable.rows) <= (view.augment and len(usable.rows) < len(spec.rows)):
                continue  # nothing is left of it, or one image, on which BatchNorm cannot train
            batch = self._batch(spec, usable)
            padding = torch.from_numpy(usable.padding)
            yield TrainBatch(
                batch.images,
                fill_ignored(targets(batch).own, padding).to(cache.device),
                torch.from_numpy(usable.replaced).to(cache.device),
                padding=padding.to(cache.device) if usable.padding.any() else None,
                step=spec.step,
            )

    def _batch(self, spec: BatchSpec, usable: _UsableRows) -> Batch:
        """Return features in place of images, with keys and labels."""
        table, index = self._labels.take(usable.rows), self.cache.index
        sets = (
            collate_label_sets(table["labels"].to_pylist(), len(index.classes))
            if index.is_multi_label
            else None
        )
        return Batch(
            images=self.take(usable.rows),
            labels=torch.from_numpy(table["label"].to_numpy().astype(np.int64)),
            keys=tuple(self.cache.keys[row] for row in usable.rows.tolist()),
            epoch=spec.epoch,
            step=spec.step,
            replaced=usable.replaced,
            padding=usable.padding,
            num_skipped=len(spec.rows) - len(usable.rows),
            label_sets=sets,
        )

    @cached_property
    def _labels(self) -> ChunkedTable:
        return ChunkedTable(self.cache.index.table.select(["label", "labels"]))

    def _replace_bad(self, spec: BatchSpec) -> _UsableRows:
        """Replace bad images as a feed does, or leave them out, as the plan says.

        Raises:
            RunError: no other image is left.
        """
        rows, replaced = spec.rows.copy(), np.zeros(len(spec.rows), bool)
        if not self.bad:
            return _UsableRows(rows, spec.padding, replaced)
        is_bad = np.isin(rows, list(self.bad))
        if self.cache.plan.errors.on_error == "skip":
            return _UsableRows(rows[~is_bad], spec.padding[~is_bad], replaced[~is_bad])
        for number in np.flatnonzero(is_bad).tolist():
            key, seed = self.cache.keys[rows[number]], self.cache.plan.seed
            tried = replacements(self.rows, seed=seed, epoch=spec.epoch, key=key).tolist()
            others = [row for row in tried if row not in self.bad]
            if not others:
                raise RunError(
                    f"features: expected an image in place of {quoted(key)}, got {len(tried)} that cannot be used either; see "
                    "quarantine.jsonl"
                )
            rows[number], replaced[number] = others[0], True
        return _UsableRows(rows, spec.padding, replaced)

    def _read(self, rows: np.ndarray) -> list[np.ndarray | None]:
        """Return the features in memory or in the store; None where there are none."""
        found: list[np.ndarray | None] = [self._memory.get(row) for row in rows.tolist()]
        stored = [number for number, one in enumerate(found) if one is None]
        if self.store is not None and stored:
            packed = self.store.get(self.keys.for_rows(rows[stored]))
            for number, one in zip(stored, packed, strict=True):
                found[number] = None if one is None else self._unpack(one, self.store)
        return found

    def _missing(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows without features; a file that changed since it was indexed has none in the store."""
        stored = np.zeros(len(rows), bool)
        if self.store is not None and len(rows):
            stored = np.array(self.store.contains_each(self.keys.for_rows(rows)))
            stored &= self._are_current(rows)
        known = self._memory.keys() | self.bad
        return np.array(
            [row for row, there in zip(rows.tolist(), stored, strict=True) if not there and row not in known],
            np.int64,
        )

    def _are_current(self, rows: np.ndarray) -> np.ndarray:
        return FileVersions(self.cache.index.table).are_current(rows)

    def _compute(self, rows: np.ndarray, *, keep: bool = False) -> None:
        """Compute features and store them; ``keep`` keeps them in memory, where the store just lost them."""
        if not len(rows):
            return
        row_of = {self.cache.keys[row]: row for row in rows.tolist()}
        waiting: list[int] = []
        num_bytes = 0
        try:
            for key, features in self.cache.compute(rows, self.view, is_rest=len(rows) < len(self.rows)):
                row = row_of.pop(key)
                self._memory[row] = features.copy()
                waiting.append(row)
                num_bytes += features.nbytes
                if num_bytes >= FLUSH_BYTES and not keep:
                    self._flush(waiting)
                    waiting, num_bytes = [], 0
        finally:  # an interrupted run keeps what it has
            if not keep:
                self._flush(waiting)
        self.bad.update(row_of.values())

    def _flush(self, waiting: list[int]) -> None:
        """Write features and forget those that are stored."""
        if self.store is None or not waiting:
            return
        rows = np.array(waiting)
        rows = rows[
            self._are_current(rows)
        ]  # so that no features are stored under the key of another version
        keys = self.keys.for_rows(rows)
        self.store.put(
            [(key, _pack(self._memory[row])) for key, row in zip(keys, rows.tolist(), strict=True)]
        )
        self.store.publish()
        for row, there in zip(rows.tolist(), self.store.contains_each(keys), strict=True):
            if there:
                del self._memory[row]

    def _unpack(self, packed: CachedImage, store: PixelCache) -> np.ndarray | None:
        """Return features of a shard without copying them; None, and the shard is deleted, if they are none of this network."""
        dtype, values = self.cache.dtype, packed.data[4 * _HEADER :]
        shape = _shape_of(packed.data)
        if math.prod(shape) * dtype.itemsize != len(values) or self._shape not in (None, shape):
            store.discard(packed)
            return None
        self._shape = shape
        return values.view(dtype).reshape(shape)


class _UsableRows(NamedTuple):
    """Rows of a batch whose features exist."""

    rows: np.ndarray
    padding: np.ndarray
    replaced: np.ndarray


def _shape_of(data: np.ndarray) -> tuple[int, ...]:
    """Return the shape in the header of packed features; (0,) if there is none."""
    if len(data) < 4 * _HEADER:
        return (0,)
    num_dimensions, *sizes = data[: 4 * _HEADER].view(np.int32).tolist()
    shape = tuple(sizes[:num_dimensions])
    return shape if 0 < num_dimensions < _HEADER and min(shape) > 0 else (0,)


def _pack(features: np.ndarray) -> CachedImage:
    """Put features behind a header with their shape."""
    header = np.zeros(_HEADER, np.int32)
    header[0] = features.ndim
    header[1 : 1 + features.ndim] = features.shape
    data = np.concatenate([header.view(np.uint8), np.ascontiguousarray(features).reshape(-1).view(np.uint8)])
    return CachedImage(data, (1, math.prod(features.shape)))
