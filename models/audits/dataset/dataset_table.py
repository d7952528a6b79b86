"""Everything known of a dataset's images, as columns that the checks of a dataset audit read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ....pipeline.rng import derive_seed, numpy_generator

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class DatasetTable:
    """One row per image of the index, in the order of the index, also for files that cannot be read."""

    keys: NDArray[np.object_]
    labels: NDArray[np.int64]
    """Class number; -1 for images without a label and for several labels."""
    class_names: Sequence[str]
    """Names of the classes by number."""
    splits: NDArray[np.object_]
    """Name of the split, or None."""
    problems: NDArray[np.object_]
    """Why a file could not be read, or None."""
    seed: int
    files: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Columns of the index and measures of the files by name (``bytes``, ``width``, ``format``, ``content_hash``, ...):
    numbers with NaN, or strings with None as objects, where a measure does not apply or the file cannot be read."""
    images: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Measures of the decoded images by name, likewise; hashes are rows of an uint8 array (N, bytes)."""
    features: NDArray[np.float32] | None = None
    """Features of a network (N, D), NaN for images that cannot be read; None without a network."""

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def is_readable(self) -> NDArray[np.bool_]:
        """Rows whose image was decoded."""
        return np.asarray([problem is None for problem in self.problems], np.bool_)

    def generator(self, purpose: str) -> np.random.Generator:
        """Create a generator that depends on the plan's seed and the purpose only."""
        return numpy_generator(derive_seed("inspect", self.seed, 0, purpose))

    def keys_of(self, rows: Sequence[int] | NDArray[np.intp]) -> tuple[str, ...]:
        """Return the keys of rows, in their order."""
        return tuple(str(self.keys[row]) for row in rows)
