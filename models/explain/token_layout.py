"""Layout of a layer's output (NCHW, NHWC or tokens), determined by moving a patch over the input.

The shape of an output is ambiguous: (N, 14, 14, 384) may be channels first or channels last. So a patch is placed into
each quadrant of an image. A layout is accepted if the response moves along the rows of the output as the patch moves
down, and along its columns as the patch moves right.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..zoo.map_layout import MapLayout, possible_layouts

MIN_SHIFT = 0.02
"""Minimum shift of the response, as a fraction of the map's side, when the patch moves from one side to the other."""
WRONG_SHIFT = 0.1
"""Shift along the other axis that indicates wrong axes; the response of an untrained network to noise stays below."""


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
