"""Records of an audit: predictions and Grad-CAM maps, one row per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAPS, FINDINGS, PICTURES = "maps", "findings", "pictures"
"""Names of the audit's stages."""
RECORDS_NAME = "records.parquet"
"""The records of the maps, for users."""

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("label", pa.int64()),  # -1 where the index has no label
        ("known", pa.bool_()),  # the model has an output for the label; false if unlabelled
        (
            "prediction",
            pa.int64(),
        ),  # numbered like labels: classes of the index first, then other classes of the model
        ("output", pa.int64()),  # model output of the prediction
        ("logits", pa.list_(pa.float32())),  # by output; null for models with more than 100 outputs
        ("confidence", pa.float32()),  # softmax probability of the prediction, 0..1
        ("top5", pa.list_(pa.int64())),  # best first
        ("true_confidence", pa.float32()),  # softmax probability of the label; null unless known
        ("explained", pa.int64()),  # target class of the map
        ("map", pa.list_(pa.float32())),  # row-major, after ReLU, not scaled; null if not finite
        ("map_true", pa.list_(pa.float32())),  # map of the label; null unless known
        ("map_height", pa.int32()),
        ("map_width", pa.int32()),
        ("image_height", pa.int32()),  # pixels of the model input
        ("image_width", pa.int32()),
        (
            "border_mass",
            pa.float32(),
        ),  # fraction of the map's mass on the border, 0..1; null for an empty map
        ("concentration", pa.float32()),  # 0 (uniform) .. 1 (single cell); null for an empty map
        ("blank", pa.bool_()),  # the map is empty; null without a map
        ("blank_true", pa.bool_()),
        ("no_map", pa.bool_()),  # the map is not finite
        ("hit", pa.bool_()),  # the peak of the label's map is in a box; null without boxes
        ("centre_hit", pa.bool_()),  # the image centre is in a box; null without boxes
        ("box_cover", pa.float32()),  # fraction of the image covered by boxes, 0..1; null without boxes
        ("target_layer", pa.string()),
        ("model", pa.string()),  # properties of the model as JSON, the same in every row
    ]
)
"""One row per audited image, without replacements of unreadable files."""


@dataclass(frozen=True)
class Predictions:
    """Columns of the records from which metrics are computed, as arrays of equal length."""

    keys: NDArray[np.object_]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidences: NDArray[np.float32]
    border_mass: NDArray[np.float32]
    """NaN for empty maps."""
    concentration: NDArray[np.float32]
    """NaN for empty maps."""
    known: NDArray[np.bool_] | None = None
    """Rows whose label is a class of the model; None for all labelled rows."""

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Rows whose label is a class of the model, that is, correct or wrong ones."""
        labelled = self.labels >= 0
        return np.asarray(labelled if self.known is None else labelled & self.known, dtype=np.bool_)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Correct predictions."""
        return np.asarray(self.labelled & (self.labels == self.predictions), dtype=np.bool_)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Wrong predictions."""
        return np.asarray(self.labelled & (self.labels != self.predictions), dtype=np.bool_)


def read_predictions(records: pa.Table) -> Predictions:
    """Extract the columns from which metrics are computed."""
    return Predictions(
        keys=np.asarray(records["key"].to_pylist(), dtype=object),
        labels=column(records, "label"),
        predictions=column(records, "prediction"),
        confidences=column(records, "confidence"),
        border_mass=column(records, "border_mass"),
        concentration=column(records, "concentration"),
        known=np.asarray(records["known"].to_pylist(), dtype=np.bool_),
    )


def column(records: pa.Table, name: str) -> Any:
    """Return a numeric column as an array; nulls of a float column become NaN."""
    return records[name].to_numpy()


def maps_of(records: pa.Table, name: str = "map") -> list[NDArray[np.float32] | None]:
    """Return the maps as float32 arrays (height, width); None for rows without a map."""
    heights, widths = records["map_height"].to_pylist(), records["map_width"].to_pylist()
    flat = records[name].combine_chunks()
    return [
        np.asarray(cell.values, dtype=np.float32).reshape(height, width) if cell.is_valid else None
        for cell, height, width in zip(flat, heights, widths, strict=True)
    ]
