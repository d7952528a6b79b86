"""Columns of the records from which candidate findings are computed, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from .....pipeline.rng import derive_seed, numpy_generator
from ...findings.finding import Region
from ..cells import Cells, read_cells
from ..edges import read_edges
from ..gallery import class_name
from ..records import column, features_array, maps_array

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from ..classes import ClassMatch
    from .labels import SuspectedLabels

MAX_GRID = 14
"""Maps with more cells a side are summed to at most so many."""


@dataclass(frozen=True)
class ImageTable:
    """One row per image."""

    keys: NDArray[np.object_]
    classes: NDArray[np.int64]
    """Label; with no labelled image at all, prediction. -1 for images without a class, which have no map here either."""
    by_label: bool
    """Whether classes are labels."""
    labels: NDArray[np.int64]
    """-1 unless the label is a class of the model."""
    predictions: NDArray[np.int64]
    confidences: NDArray[np.float32]
    shares: NDArray[np.float32]
    """Share of the positive evidence for the class in each cell of its map, (N, h, w); NaN without such evidence."""
    map_size: tuple[int, int]
    """Cells of the maps, of which ``shares`` has the sums of neighbours if there are many."""
    features: NDArray[np.float32]
    """(N, D); NaN without."""
    evidence_features: NDArray[np.float32]
    names: Sequence[str]
    """Names of all classes by number."""
    seed: int
    cells: Cells | None = None
    """Cells of a sample of the images; None for networks without a linear head."""
    edges: NDArray[np.uint8] | None = None
    """Colours along the edges, (N, sides, depths, segments, channels); see `edge_colours`."""
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Further columns of the images by name: numbers, or strings as objects."""

    @property
    def has_map(self) -> NDArray[np.bool_]:
        """Rows with a class and positive evidence for it."""
        return np.asarray((self.classes >= 0) & ~np.isnan(self.shares[:, 0, 0]), np.bool_)

    @cached_property
    def suspected_labels(self) -> SuspectedLabels | None:
        """Labels that the features contradict, computed once."""
        from .labels import contradicted_labels

        return contradicted_labels(self)

    def generator(self, purpose: str) -> np.random.Generator:
        """Create a generator that depends on the plan's seed and the purpose only."""
        return numpy_generator(derive_seed("suspects", self.seed, 0, purpose))

    def name_of(self, number: int) -> str:
        """Return the name of a class."""
        return class_name(number, self.names)

    def region(self, name: str, weights: NDArray[np.floating[Any]]) -> Region:
        """Return a region, given on the grid of ``shares``, on the cells of the maps."""
        for axis, side in enumerate(self.map_size):
            step = -(-side // MAX_GRID)
            weights = np.repeat(weights, step, axis=axis).take(np.arange(side), axis=axis)
        return Region.from_weights(name, weights)

    def keys_of(self, rows: Sequence[int] | NDArray[np.intp]) -> tuple[str, ...]:
        """Return the keys of rows, in their order."""
        return tuple(str(self.keys[row]) for row in rows)


FACTS = ("bytes", "width", "height", "format", "brightness", "contrast", "is_gray")
"""Columns of the records that describe the file and the pixels of an image."""


def read_image_table(records: pa.Table, match: ClassMatch, seed: int) -> ImageTable:
    """Read the records of the stage ``maps``, at least one row, in the order of the keys."""
    records = records.sort_by("key")
    known = np.asarray(records["known"].to_pylist(), np.bool_)
    labels = np.where(known, column(records, "label"), -1)
    predictions = column(records, "prediction")
    by_label = bool(known.any())
    name = "map_true" if by_label else "map"
    maps = maps_array(records, name, rectified=True)
    maps[pc.fill_null(records[name.replace("map", "blank")], False).to_numpy()] = np.nan
    return ImageTable(
        keys=np.asarray(records["key"].to_pylist(), object),
        classes=labels if by_label else predictions,
        by_label=by_label,
        labels=labels,
        predictions=predictions,
        confidences=column(records, "confidence"),
        shares=evidence_shares(sum_cells(maps)),
        map_size=(int(maps.shape[1]), int(maps.shape[2])),
        features=features_array(records),
        evidence_features=features_array(records, "evidence_features"),
        names=match.names,
        seed=seed,
        cells=read_cells(records, match.class_of_output),
        edges=read_edges(records),
        facts={name: _fact(records, name) for name in FACTS},
    )


def _fact(records: pa.Table, name: str) -> NDArray[Any]:
    values = records[name].to_pylist()
    if any(isinstance(value, str) for value in values):
        return np.asarray(values, object)
    return np.asarray([np.nan if value is None else value for value in values], np.float64)


def sum_cells(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum neighbouring cells of maps (N, h, w) until no side has more than `MAX_GRID`."""
    for axis in (1, 2):
        side = maps.shape[axis]
        step = -(-side // MAX_GRID)
        if step > 1:
            maps = np.add.reduceat(maps, np.arange(0, side, step), axis=axis)
    return maps


def evidence_shares(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide rectified maps (N, h, w) by their sums; NaN for empty maps."""
    totals = maps.sum(axis=(1, 2), keepdims=True)
    return np.asarray(maps / np.where(totals > 0, totals, np.nan), np.float32)
