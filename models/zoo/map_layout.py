"""Layout of a layer's output as a map of rows and columns: NCHW, NHWC or tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MAX_PREFIX = 16
"""Maximum number of class, distillation and register tokens before the patch tokens."""


@dataclass(frozen=True, slots=True)
class MapLayout:
    """Interpretation of a layer's output as a map (N, C, h, w)."""

    kind: str
    """``NCHW``, ``NHWC`` or ``NLC`` (tokens)."""
    height: int
    width: int
    num_prefix: int = 0
    """Tokens before the patch tokens, without a position."""

    @property
    def num_cells(self) -> int:
        """Number of cells of the map."""
        return self.height * self.width

    def to_nchw(self, output: torch.Tensor) -> torch.Tensor:
        """View an output as (N, C, h, w)."""
        if self.kind == "NHWC":
            return output.permute(0, 3, 1, 2)
        if self.kind == "NLC":
            tokens = output[:, self.num_prefix :].transpose(1, 2)
            return tokens.reshape(*tokens.shape[:2], self.height, self.width)
        return output

    def fits(self, output: torch.Tensor) -> bool:
        """Return whether an output has the shape of this layout."""
        shape = tuple(output.shape)
        if self.kind == "NLC":
            return len(shape) == 3 and shape[1] == self.num_prefix + self.num_cells
        at = 2 if self.kind == "NCHW" else 1
        return len(shape) == 4 and shape[at : at + 2] == (self.height, self.width)


def possible_layouts(
    shape: tuple[int, ...], image_size: tuple[int, int], num_prefix: int | None = None
) -> Iterator[MapLayout]:
    """Yield the possible layouts of an output: those with about the aspect ratio of the image and more than one cell.

    Args:
        shape: shape of the output, (N, ...).
        image_size: height and width of the input, for the shape of a token grid.
        num_prefix: number of class and register tokens that the model declares; None if it declares none.
    """
    if len(shape) == 4:
        for kind, (height, width) in (("NCHW", shape[2:]), ("NHWC", shape[1:3])):
            if height * width > 1 and abs(height * image_size[1] / image_size[0] - width) <= max(
                2, 0.35 * width
            ):
                yield MapLayout(kind, height, width)
    elif len(shape) == 3:
        stated = [] if num_prefix is None else [num_prefix]
        for prefix in dict.fromkeys([*stated, *range(MAX_PREFIX + 1)]):
            grid = token_grid(shape[1] - prefix, image_size)
            if grid is not None:
                yield MapLayout("NLC", *grid, prefix)
                return  # another prefix would give the same map, shifted by a few cells


def token_grid(num_tokens: int, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """Return rows and columns of a token grid with the aspect ratio of the image; None if there is none."""
    if num_tokens < 4:
        return None
    height = round(math.sqrt(num_tokens * image_size[0] / image_size[1]))
    for rows in (height, height - 1, height + 1):
        if rows > 0 and num_tokens % rows == 0:
            columns = num_tokens // rows
            # Sides of the image may exceed a whole number of patches by less than one.
            if abs(image_size[0] / rows - image_size[1] / columns) <= max(image_size) / num_tokens:
                return rows, columns
    return None
