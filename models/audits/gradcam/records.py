"""Records of an audit: predictions and Grad-CAM maps, one row per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...explain.measures.evidence import EVIDENCE_FIELDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAPS, TRUST, SUSPECTS, INTERVENTIONS = "maps", "trust", "suspects", "interventions"
FINDINGS, SUMMARY, PICTURES, OPINIONS, OVERLAYS = "findings", "summary", "pictures", "opinions", "overlays"
"""Names of the audit's stages."""
RECORDS_NAME = "records.parquet"
"""The records of the maps, for users."""
FINDINGS_NAME = "findings.parquet"
FIXES_NAME = "fixes.csv"
"""Images that show a finding, for ``lightwell index --apply``."""
OPINIONS_NAME = "second_opinions.parquet"
"""Attributions by other methods, for users."""

NUM_FEATURES = 128
"""Length of the feature columns; wider activations are projected, narrower ones padded with zeros."""
MAP_VALUES = pa.list_(pa.float16())

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("label", pa.int64()),  # -1 where the index has no label
        ("known", pa.bool_()),  # the model has an output for the label; false if unlabelled
        # Classes are numbered like labels: those of the index first, then other classes of the model.
        ("prediction", pa.int64()),
        ("output", pa.int64()),  # model output of the prediction
        ("logits", pa.list_(pa.float32())),  # by output; null for models with more than 100 outputs
        ("confidence", pa.float32()),  # softmax probability of the prediction, 0..1
        ("top5", pa.list_(pa.int64())),  # best first
        ("second", pa.int64()),  # class with the second highest logit; null for models with one output
        ("true_confidence", pa.float32()),  # softmax probability of the label; null unless known
        ("explained", pa.int64()),  # target class of the map
        # Maps are signed (before the ReLU), row-major and divided by their scale, the largest absolute value, which is 0
        # for a map of zeros; both are null where the map is not finite or not asked for. `maps_array` reads them.
        ("map", MAP_VALUES),
        ("map_scale", pa.float32()),
        ("map_true", MAP_VALUES),  # of the label; null unless known
        ("map_true_scale", pa.float32()),
        ("map_second", MAP_VALUES),  # of the second class, with explain: second
        ("map_second_scale", pa.float32()),
        ("map_classes", pa.list_(pa.int64())),  # classes of `maps`: those that explain names, or all
        ("maps", pa.list_(MAP_VALUES)),
        ("map_scales", pa.list_(pa.float32())),
        ("map_height", pa.int32()),
        ("map_width", pa.int32()),
        ("features", pa.list_(pa.float16(), NUM_FEATURES)),  # mean activation of the target layer
        # The same, weighted by the rectified map of the prediction; null if that is empty.
        ("evidence_features", pa.list_(pa.float16(), NUM_FEATURES)),
        # Of a sample of the images, for networks with average pooling and a linear layer of at most 100 outputs: features of
        # each cell, and the evidence of each cell for each output; `read_cells` reads them. Row-major, null for the others.
        ("cell_features", pa.list_(pa.float16())),
        ("cell_evidence", pa.list_(pa.float16())),
        ("cell_height", pa.int32()),
        ("cell_width", pa.int32()),
        ("image_height", pa.int32()),  # pixels of the model input
        ("image_width", pa.int32()),
        # Where the evidence of `map` lies; `hit` is of the label's map.
        *EVIDENCE_FIELDS,
        ("blank_true", pa.bool_()),  # the label's map is empty; null without one
        ("bytes", pa.int64()),  # of the file, as width, height (upright pixels) and format; from the index
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("brightness", pa.float32()),  # mean luma of the model input, without its normalisation, 0..1
        ("contrast", pa.float32()),  # standard deviation of that luma
        ("is_gray", pa.bool_()),  # all channels of the model input are equal
        (
            "edges",
            pa.binary(),
        ),  # colours along the edges of the model input, uint8; `edge_colours` says which
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


def map_size(records: pa.Table) -> tuple[int, int]:
    """Return height and width of the maps; of several sizes the most frequent one."""
    sizes, counts = np.unique(
        np.stack((column(records, "map_height"), column(records, "map_width")), axis=1),
        axis=0,
        return_counts=True,
    )
    height, width = sizes[counts.argmax()].tolist() if len(sizes) else (1, 1)
    return int(height), int(width)


def maps_array(records: pa.Table, name: str = "map", *, rectified: bool = False) -> NDArray[np.float32]:
    """Return the maps of all rows as one array, in the units of the logits.

    Args:
        records: records of the stage ``maps``.
        name: ``map``, ``map_true`` or ``map_second``.
        rectified: set negative values, evidence against the class, to 0.

    Returns:
        float32 (N, h, w) of the most frequent size; NaN in rows without a map, or with one of another size.
    """
    height, width = map_size(records)
    values = records[name].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy()
    flat = values.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    fits = (
        (lengths == height * width)
        & (column(records, "map_height") == height)
        & (column(records, "map_width") == width)
    )
    found = np.full((len(records), height * width), np.nan, np.float32)
    found[fits] = flat[np.repeat(fits, lengths)].reshape(-1, height * width)
    found *= np.asarray(column(records, f"{name}_scale"), np.float32)[:, None]
    if rectified:
        np.maximum(found, 0, out=found)
    return found.reshape(-1, height, width)


def features_array(records: pa.Table, name: str = "features") -> NDArray[np.float32]:
    """Return ``features`` or ``evidence_features`` as float32 (N, NUM_FEATURES); NaN in rows without them."""
    values = records[name].combine_chunks()
    found = np.full((len(records), NUM_FEATURES), np.nan, np.float32)
    found[values.is_valid().to_numpy(zero_copy_only=False)] = (
        values.flatten().to_numpy(zero_copy_only=False).reshape(-1, NUM_FEATURES)
    )
    return found


def maps_of(
    records: pa.Table, name: str = "map", *, rectified: bool = True
) -> list[NDArray[np.float32] | None]:
    """Return the maps as float32 arrays (height, width) of any size; None for rows without a map."""
    columns = (records[each] for each in (name, f"{name}_scale", "map_height", "map_width"))
    return [
        None
        if not cell.is_valid
        else np.maximum(
            np.asarray(cell.values, np.float32) * np.float32(scale.as_py()), 0 if rectified else -np.inf
        ).reshape(height.as_py(), width.as_py())
        for cell, scale, height, width in zip(*columns, strict=True)
    ]
