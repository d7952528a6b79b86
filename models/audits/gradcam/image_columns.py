"""Columns of the records that describe an image, whatever the model: its file, and the pixels that the model sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ....pipeline.compiler.program import Program
from .edges import edge_colours

if TYPE_CHECKING:
    from ....pipeline.plan.plan import Plan

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""
GRAY_TOLERANCE = 1.5 / 255
"""Largest difference of the channels of a gray image, for the rounding of the normalisation."""
_COLUMNS = ("key", "bytes", "width", "height", "format", "orientation")
_TURNED = 5
"""EXIF orientations from here on swap width and height."""


class ImageColumns:
    """Describes the images of a plan's index, by key."""

    def __init__(self, plan: Plan, split: str | None) -> None:
        index = plan.load_index()
        self._files = index.table.select(_COLUMNS).take(index.rows(split))
        self._rows = {key: row for row, key in enumerate(self._files["key"].to_pylist())}
        self._constants = Program.compile(plan).normalization

    def __call__(self, keys: Sequence[str], images_nchw: torch.Tensor) -> dict[str, list[Any]]:
        """Return the columns of a batch of model inputs."""
        files = self._files.take([self._rows[key] for key in keys]).to_pydict()
        turned = [(orientation or 1) >= _TURNED for orientation in files["orientation"]]
        sizes = zip(files["width"], files["height"], turned, strict=True)
        upright = [(height, width) if turn else (width, height) for width, height, turn in sizes]
        return {
            "bytes": files["bytes"],
            "width": [width for width, _ in upright],
            "height": [height for _, height in upright],
            "format": files["format"],
            **self._pixel_columns(images_nchw.float()),
        }

    def _pixel_columns(self, images_nchw: torch.Tensor) -> dict[str, list[Any]]:
        channels = images_nchw.shape[1]
        given = ((0.0,), (1.0,)) if self._constants is None else (self._constants.mean, self._constants.std)
        mean, std = (torch.tensor(each).to(images_nchw).expand(channels) for each in given)
        weights = torch.tensor(LUMA if channels == len(LUMA) else [1 / channels] * channels).to(images_nchw)
        luma = torch.einsum("nchw,c->nhw", images_nchw, weights * std) + (weights * mean).sum()
        pixels = images_nchw * std[:, None, None] + mean[:, None, None]
        spread = (pixels.amax(1) - pixels.amin(1)).amax((1, 2))
        return {
            "brightness": luma.mean((1, 2)).tolist(),
            "contrast": luma.std((1, 2), correction=0).tolist(),
            "is_gray": (spread <= GRAY_TOLERANCE).tolist(),
            "edges": [each.tobytes() for each in edge_colours(pixels)],
        }
