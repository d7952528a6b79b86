"""Counts the boxes of an index, and those without an area inside their image, which are dropped on reading."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..geometry import FIRST_TRANSPOSED

BOX_COLUMNS = 4
NUM_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class BoxCount:
    """Number of boxes in the usable images of an index."""

    num_boxes: int
    num_dropped: int
    """Boxes among these without an area inside their image."""
    keys: tuple[str, ...]
    """The first images with dropped boxes."""


def has_area(boxes: np.ndarray, sizes: np.ndarray | tuple[int, int]) -> np.ndarray:
    """Return which boxes have an area inside an image, in the precision that Albumentations uses.

    Args:
        boxes: float (n, 4) as x0, y0, x1, y1 in pixels; NaN gives no area.
        sizes: height and width of the image, or (n, 2) for one size per box.

    Returns:
        bool (n,).
    """
    limits = np.asarray(sizes, np.float64).reshape(-1, 2)[:, [1, 0, 1, 0]]
    inside = np.clip(boxes / limits, 0, 1).astype(np.float32)
    return np.asarray((inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1]))


def count_boxes(table: pa.Table) -> BoxCount:
    """Count the boxes of the usable rows of an index; malformed boxes are checked when a sample is read.

    Args:
        table: with the columns of an index.
    """
    usable = pc.and_(pc.equal(table["status"], "ok"), pc.is_valid(table["boxes"]))
    rows = table.select(["key", "width", "height", "orientation", "boxes"]).filter(usable)
    lists = pc.list_flatten(rows["boxes"])
    owners = pc.list_parent_indices(rows["boxes"])
    is_complete = pc.fill_null(pc.equal(pc.list_value_length(lists), BOX_COLUMNS), False)
    boxes = pc.list_flatten(lists.filter(is_complete)).to_numpy(zero_copy_only=False).reshape(-1, BOX_COLUMNS)
    owners = owners.filter(is_complete).to_numpy()
    sizes = np.stack([rows[name].to_numpy() for name in ("height", "width")], axis=1)
    is_transposed = rows["orientation"].to_numpy() >= FIRST_TRANSPOSED
    sizes[is_transposed] = sizes[is_transposed, ::-1]
    dropped = ~has_area(boxes, sizes[owners])
    first = np.unique(owners[dropped])[:NUM_EXAMPLES]
    return BoxCount(len(boxes), int(dropped.sum()), tuple(rows["key"].take(pa.array(first)).to_pylist()))
