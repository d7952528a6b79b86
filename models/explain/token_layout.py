"""Layout of a layer's output (NCHW, NHWC or tokens), determined by moving a patch over the input.

The shape of an output is ambiguous: (N, 14, 14, 384) may be channels first or channels last. So a patch is placed into
each quadrant of an image. A layout is accepted if the response moves along the rows of the output as the patch moves
down, and along its columns as the patch moves right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

MIN_SHIFT = 0.02
"""Minimum shift of the response, as a fraction of the map's side, when the patch moves from one side to the other."""
WRONG_SHIFT = 0.1
"""Shift along the other axis that indicates wrong axes; the response of an untrained network to noise stays below."""
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


@dataclass(frozen=True, slots=True)
class Shift:
    """Shift of a map's response when the patch moves from one side of the image to the other."""

    along: float
    """Minimum shift along the axis of the patch's movement, as a fraction of the side."""
    across: float
    """Maximum shift along the other axis."""

    @property
    def follows(self) -> bool:
        """True if the response follows the patch."""
        return self.along >= MIN_SHIFT and self.along > 2 * self.across


def patch_images(image: torch.Tensor) -> torch.Tensor:
    """Return an image (1, C, H, W) and four copies, each with a bright noisy patch in one quadrant: (5, C, H, W).

    The quadrants are upper left, upper right, lower left and lower right. The noise is seeded.
    """
    height, width = image.shape[2:]
    rows, columns = max(1, height // 2), max(1, width // 2)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((1, image.shape[1], rows, columns), generator=generator)
    patch = (1.5 + noise).to(image)
    images = image.repeat(5, 1, 1, 1)
    for number, (low, right) in enumerate(((False, False), (False, True), (True, False), (True, True)), 1):
        down = slice(height - rows, None) if low else slice(0, rows)
        across = slice(width - columns, None) if right else slice(0, columns)
        images[number, :, down, across] += patch[0]
    return images


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


def measure_shift(layout: MapLayout, outputs: torch.Tensor) -> Shift | None:
    """Measure the shift of the response to ``patch_images`` in a layout; None if there is no response."""
    maps = layout.to_nchw(outputs.detach().double())
    change = (maps[1:] - maps[:1]).abs().sum(1)
    total = change.sum((1, 2))
    if not bool(torch.isfinite(total).all()) or not bool((total > 0).all()):
        return None
    shares = (change / total[:, None, None]).cpu()
    down = centre_of_mass(shares.sum(2))
    across = centre_of_mass(shares.sum(1))
    corners = {"down": down, "across": across}
    moves = {
        name: (
            float((where[2] + where[3] - where[0] - where[1]) / 2),  # the patch moves down
            float((where[1] + where[3] - where[0] - where[2]) / 2),  # the patch moves right
        )
        for name, where in corners.items()
    }
    along, sideways = [], []
    if layout.height > 1:
        along.append(moves["down"][0])
        sideways.append(abs(moves["down"][1]))
    if layout.width > 1:
        along.append(moves["across"][1])
        sideways.append(abs(moves["across"][0]))
    return Shift(min(along), max(sideways))


def centre_of_mass(shares: torch.Tensor) -> torch.Tensor:
    """Return the centre of mass of each row (N, cells), which sum to one, on a scale of 0..1."""
    cells = shares.shape[1]
    positions = (
        torch.linspace(0, 1, cells, dtype=shares.dtype) if cells > 1 else torch.zeros(1, dtype=shares.dtype)
    )
    return shares @ positions


def find_layout(
    outputs: torch.Tensor, image_size: tuple[int, int], num_prefix: int | None = None
) -> MapLayout | None:
    """Find the layout of a layer from its outputs for ``patch_images``; None if no layout follows the patch.

    Args:
        outputs: (5, ...), any layout.
        image_size: height and width of the images.
        num_prefix: number of class and register tokens that the model declares; None if it declares none.
    """
    best: tuple[float, MapLayout] | None = None
    for layout in possible_layouts(tuple(outputs.shape), image_size, num_prefix):
        shift = measure_shift(layout, outputs)
        if shift is not None and shift.follows and (best is None or shift.along > best[0]):
            best = shift.along, layout
    return best[1] if best else None


def may_be_nchw(outputs: torch.Tensor, image_size: tuple[int, int]) -> bool:
    """Return whether an output may be (N, C, h, w): its aspect ratio fits, and no response moves along the wrong axis."""
    fitting = [each for each in possible_layouts(tuple(outputs.shape), image_size) if each.kind == "NCHW"]
    shift = measure_shift(fitting[0], outputs) if fitting else None
    return bool(fitting) and (shift is None or shift.across < WRONG_SHIFT)
