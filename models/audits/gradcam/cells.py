"""Features and evidence of single cells of the target layer, from which places are found that look alike in many images.

Only networks with average pooling and a linear layer behind the target layer have them: the evidence of a cell for a class
is then exact, ``W_k . A_hw / (h w)``, and costs one matrix product for all classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ....pipeline.rng import derive_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from .features import FeatureProjection

MAX_SIDE = 7
"""Neighbouring cells are pooled until a side has at most so many."""
MAX_SAMPLED = 8192
"""Images of a split whose cells are recorded, chosen by their keys."""
MAX_FLOAT16 = 65504.0


@dataclass(frozen=True)
class Cells:
    """Cells of the images of a sample."""

    rows: NDArray[np.intp]
    """Rows of the table, ascending."""
    features: NDArray[np.float16]
    """Activations of a cell at a fixed length, (n, cells, D)."""
    evidence: NDArray[np.float16]
    """Evidence of a cell for each class by number, (n, classes, cells); 0 for numbers that the model does not have."""
    size: tuple[int, int]
    """Rows and columns of the cells."""


def cell_arrays(
    activations_nchw: torch.Tensor, weight: torch.Tensor, project: FeatureProjection
) -> tuple[NDArray[np.float16], NDArray[np.float16], tuple[int, int]]:
    """Return features (N, cells, D) and evidence by output (N, outputs, cells) of activations, and the grid's size."""
    activations, num_cells = activations_nchw.float(), activations_nchw[0, 0].numel()
    evidence = torch.einsum("nchw,kc->nkhw", activations, weight.float()) / num_cells
    for axis in (2, 3):
        step = -(-activations.shape[axis] // MAX_SIDE)
        if step > 1:
            activations = _pool(activations, axis, step) / step
            evidence = _pool(evidence, axis, step)
    height, width = activations.shape[2:]
    flat = activations.flatten(2).transpose(1, 2)
    features = project(flat.reshape(-1, flat.shape[2]).cpu()).reshape(len(flat), height * width, -1)
    exact = evidence.flatten(2).clamp(-MAX_FLOAT16, MAX_FLOAT16)
    return features, exact.half().cpu().numpy(), (int(height), int(width))


def _pool(values: torch.Tensor, axis: int, step: int) -> torch.Tensor:
    """Sum neighbours along an axis; the last group may be smaller."""
    return torch.stack([part.sum(axis) for part in torch.split(values, step, axis)], axis)


def cell_columns(
    cells: tuple[NDArray[np.float16], NDArray[np.float16], tuple[int, int]] | None, chosen: NDArray[np.bool_]
) -> dict[str, list[Any]]:
    """Return the columns of a batch from the arrays of the chosen images; null for the others, or without cells."""
    columns: dict[str, list[Any]] = {
        name: [None] * len(chosen) for name in ("cell_features", "cell_evidence", "cell_height", "cell_width")
    }
    if cells is not None:
        features, evidence, (height, width) = cells
        for place, row in enumerate(np.flatnonzero(chosen).tolist()):
            columns["cell_features"][row] = features[place].ravel()
            columns["cell_evidence"][row] = evidence[place].ravel()
            columns["cell_height"][row], columns["cell_width"][row] = height, width
    return columns


def read_cells(records: pa.Table, class_of_output: Sequence[int]) -> Cells | None:
    """Read the cells of records; None if there are none, or of several sizes.

    Args:
        records: of the stage ``maps``.
        class_of_output: class number of each output of the model.
    """
    rows = np.flatnonzero(records["cell_features"].is_valid().to_numpy())
    if not len(rows):
        return None
    chosen = records.take(rows)
    sizes = set(zip(chosen["cell_height"].to_pylist(), chosen["cell_width"].to_pylist(), strict=True))
    if len(sizes) > 1:
        return None
    ((height, width),) = sizes
    features, evidence = (
        chosen[name].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(len(rows), *shape)
        for name, shape in (
            ("cell_features", (height * width, -1)),
            ("cell_evidence", (-1, height * width)),
        )
    )
    by_class = np.zeros((len(rows), max(class_of_output) + 1, height * width), np.float16)
    by_class[:, list(class_of_output)] = evidence
    return Cells(rows, features, by_class, (height, width))


@dataclass(frozen=True)
class CellSample:
    """Chooses the images whose cells are recorded, by their keys, so that every worker chooses the same."""

    seed: int
    num_images: int
    """Images of the split."""

    def __call__(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Return which images are chosen: all of a small split, about `MAX_SAMPLED` of a large one."""
        limit = min(1.0, MAX_SAMPLED / max(1, self.num_images)) * 2**128
        return np.array([derive_seed("maps", self.seed, 0, f"cells {key}") < limit for key in keys], np.bool_)
