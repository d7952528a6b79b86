"""Colours along the edges of model inputs, from which frames, bars and borders of scans are found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

GRID = 28
"""Cells a side of the grid on which frames are described; a strip begins at the outer side of a row of cells."""
NUM_DEPTHS = 4
"""Rows of cells, from the edge inwards."""
STRIP = 0.015
"""Width of a strip as a share of the image's side, below that of a cell, so that thin frames fill it."""
SEGMENTS = 8
"""Parts of a strip, of each of which the mean colour is taken."""
SIDES = ("top", "bottom", "left", "right")


def edge_colours(pixels_nchw: torch.Tensor) -> NDArray[np.uint8]:
    """Return mean colours (N, 4 sides, depths, segments, channels), 0 to 255, of images with values from 0 to 1.

    Segments run from the left, or from the top.
    """
    sides = []
    for side in SIDES:
        turned = pixels_nchw if side in ("top", "bottom") else pixels_nchw.transpose(2, 3)
        turned = turned if side in ("top", "left") else turned.flip(2)
        height = turned.shape[2]
        width = max(1, round(STRIP * height))
        starts = [height * depth // GRID for depth in range(NUM_DEPTHS)]
        strips = torch.stack([turned[:, :, start : start + width].mean(2) for start in starts], 1)
        mean = torch.nn.functional.adaptive_avg_pool1d(strips.flatten(0, 1), SEGMENTS)
        sides.append(mean.reshape(*strips.shape[:3], SEGMENTS).transpose(2, 3))
    colours = torch.stack(sides, 1).mul(255).round().clamp(0, 255).to(torch.uint8)
    return colours.cpu().numpy()


def read_edges(records: pa.Table) -> NDArray[np.uint8]:
    """Return the column ``edges`` of records, at least one row, in the shape of `edge_colours`."""
    flat = np.frombuffer(b"".join(records["edges"].to_pylist()), np.uint8)
    return flat.reshape(records.num_rows, len(SIDES), NUM_DEPTHS, SEGMENTS, -1)
