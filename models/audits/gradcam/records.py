"""The rows of an audit: what the model said of every image, and where it looked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("label", pa.int64()),  # -1 where the index has no label
        ("known", pa.bool_()),  # the model has an output for the label; false without a label
        (
            "prediction",
            pa.int64(),
        ),  # numbered as the label: classes of the index first, then others of the model
        ("output", pa.int64()),  # of the model, for the prediction
        ("logits", pa.list_(pa.float32())),  # by output; null for models of more than 100 outputs
        ("confidence", pa.float32()),  # softmax of the predicted class, 0..1
        ("top5", pa.list_(pa.int64())),  # best first
        ("true_confidence", pa.float32()),  # softmax of the labelled class; null unless it is known
        ("explained", pa.int64()),  # class that the map explains
        ("map", pa.list_(pa.float32())),  # row by row, after ReLU, not scaled; null where it is not finite
        ("map_true", pa.list_(pa.float32())),  # of the labelled class; null unless it is known
        ("map_height", pa.int32()),
        ("map_width", pa.int32()),
        ("image_height", pa.int32()),  # pixels that the model saw
        ("image_width", pa.int32()),
        ("border_mass", pa.float32()),  # share of the evidence on the border, 0..1; null for a blank map
        ("concentration", pa.float32()),  # 0 (evenly spread) .. 1 (one point); null for a blank map
        ("blank", pa.bool_()),  # the map has no evidence; null where there is no map
        ("blank_true", pa.bool_()),
        ("no_map", pa.bool_()),  # the map is not finite
        ("hit", pa.bool_()),  # the peak of the labelled class's map lies in a box; null without boxes
        ("centre_hit", pa.bool_()),  # the image's centre lies in a box; null without boxes
        ("box_cover", pa.float32()),  # share of the image that its boxes cover, 0..1; null without boxes
        ("target_layer", pa.string()),
        ("model", pa.string()),  # facts of the loaded model as JSON, the same in every row
    ]
)
"""A row per audited image. Images that replaced a bad file are left out."""


@dataclass(frozen=True)
class Predictions:
    """The columns of the records that figures are computed from, as arrays of one length."""

    keys: NDArray[np.object_]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidences: NDArray[np.float32]
    border_mass: NDArray[np.float32]
    """NaN for blank maps."""
    concentration: NDArray[np.float32]
    """NaN for blank maps."""
    known: NDArray[np.bool_] | None = None
    """Rows whose label the model knows; None for all that have one."""

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Rows that have a label which the model knows: what is right or wrong."""
        labelled = self.labels >= 0
        return np.asarray(labelled if self.known is None else labelled & self.known, dtype=np.bool_)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Rows whose prediction is their label."""
        return np.asarray(self.labelled & (self.labels == self.predictions), dtype=np.bool_)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Rows that have a label which is not the prediction."""
        return np.asarray(self.labelled & (self.labels != self.predictions), dtype=np.bool_)


def read_predictions(records: pa.Table) -> Predictions:
    """Take the columns that figures are computed from out of the records."""
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
    """Return a column of numbers as an array; nulls of a float column become NaN."""
    return records[name].to_numpy()


def maps_of(records: pa.Table, name: str = "map") -> list[NDArray[np.float32] | None]:
    """Return the small maps as (height, width) float32 arrays, None where a row has none."""
    heights, widths = records["map_height"].to_pylist(), records["map_width"].to_pylist()
    flat = records[name].combine_chunks()
    return [
        np.asarray(cell.values, dtype=np.float32).reshape(height, width) if cell.is_valid else None
        for cell, height, width in zip(flat, heights, widths, strict=True)
    ]
