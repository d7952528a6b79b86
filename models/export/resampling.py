"""OpenCV's resizing of bytes in torch operations that ONNX has, at chosen rows and columns of the result.

Written after ``modules/imgproc/src/resize.cpp`` of OpenCV: the same positions, the same 11-bit coefficients and the same
rounding, so that results differ from ``cv2.resize`` by at most one level, and by none nearly everywhere: only where the area
filter ends halfway between two levels, single precision decides.

Cubic interpolation has coefficients of 11 bits, but not in builds of OpenCV with Intel IPP, which ``has_exact_cubic`` finds
out. Their arithmetic, which is not published, was found from sums that end within 4e-5 of halfway between two levels, and is the
same in 16 million values of photos: single precision; fractions of positions rounded as ``(x + 1) - 1``; rows first, term by term
in fused multiply-adds; then columns, as the sum of the fused upper two and the fused lower two; rounded half to even.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch

NEAREST, LINEAR, CUBIC, AREA = 0, 1, 2, 3
"""Interpolations, with OpenCV's numbers."""
COEFFICIENT = 2048.0
"""Scale of OpenCV's fixed-point coefficients, of which there are at most 2048."""
CUBIC_A = -0.75
MIN_OVERLAP = 1e-3
"""Shares of a pixel below this are left out by OpenCV's area filter."""


@dataclass(frozen=True)
class Axis:
    """One axis of a resize: sizes before and after, and which positions of the result are needed."""

    num_before: torch.Tensor
    """float64 scalar."""
    num_after: torch.Tensor
    """float64 scalar."""
    positions: torch.Tensor
    """float64, shape (K,): integers, in the resized image."""

    @property
    def scale(self) -> torch.Tensor:
        """Pixels before per pixel after, rounded as OpenCV rounds it."""
        return 1.0 / (self.num_after / self.num_before)

    def neighbours(self, offsets: tuple[int, ...], first: torch.Tensor) -> torch.Tensor:
        """Return the pixels at some offsets from the first ones, clamped to the image: int64, shape (offsets * K,)."""
        last = (self.num_before - 1).long()
        found = [torch.minimum((first + offset).clamp_min(0), last) for offset in offsets]
        return torch.cat(found)


def resize(
    images: torch.Tensor, down: Axis, across: Axis, interpolation: int, *, exact_cubic: bool = True
) -> torch.Tensor:
    """Resize images as ``cv2.resize`` does, and return some rows and columns of the result.

    Args:
        images: uint8, shape (N, H, W, C).
        down: the rows.
        across: the columns.
        interpolation: one of ``NEAREST``, ``LINEAR``, ``CUBIC`` and ``AREA``.
        exact_cubic: from ``has_exact_cubic``.

    Returns:
        float32 with integers in 0..255, shape (N, rows, columns, C).
    """
    if interpolation == NEAREST:
        rows, columns = (torch.floor(axis.positions * axis.scale).long() for axis in (down, across))
        rows, columns = (axis.neighbours((0,), first) for axis, first in ((down, rows), (across, columns)))
        return images.index_select(1, rows).index_select(2, columns).float()
    if interpolation == CUBIC:
        return _cubic(images, down, across, exact=exact_cubic)
    if interpolation == LINEAR:
        return _linear(images, _linear_taps(down), _linear_taps(across), down, across)
    enlarged = _linear(images, _area_taps(down), _area_taps(across), down, across)
    shrinks = (down.scale >= 1) & (across.scale >= 1)
    return torch.where(shrinks, _area(images, down, across), enlarged)


def _linear_taps(axis: Axis) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first of two neighbouring pixels, and the weight of the second: int64 and float32, shape (K,)."""
    place = ((axis.positions + 0.5) * axis.scale - 0.5).float()
    first = torch.floor(place)
    return first.long(), place - first


def _area_taps(axis: Axis) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same for the area filter where it enlarges."""
    first = torch.floor(axis.positions * axis.scale)
    share = ((axis.positions + 1) - (first + 1) * (axis.num_after / axis.num_before)).float()
    return first.long(), torch.where(share <= 0, 0.0, share - torch.floor(share))


def _linear(
    images: torch.Tensor,
    rows: tuple[torch.Tensor, torch.Tensor],
    columns: tuple[torch.Tensor, torch.Tensor],
    down: Axis,
    across: Axis,
) -> torch.Tensor:
    (first_row, lower), (first_column, right) = rows, columns
    outside = (first_column < 0) | (first_column >= across.num_before.long() - 1)
    right = torch.where(
        outside, 0.0, right
    )  # rows are mixed with themselves instead, which rounds down twice
    beta, alpha = (torch.round(share * COEFFICIENT) for share in (lower, right))
    beta_first, alpha_first = (torch.round((1 - share) * COEFFICIENT) for share in (lower, right))
    picked = images.index_select(1, down.neighbours((0, 1), first_row))
    picked = picked.index_select(2, across.neighbours((0, 1), first_column)).float()
    (left, other), num_rows = torch.split(picked, len(alpha), dim=2), len(beta)
    mixed = left * alpha_first[:, None] + other * alpha[:, None]
    top, bottom = torch.split(torch.floor(mixed / 16).double(), num_rows, dim=1)
    high = torch.floor(top * beta_first[:, None, None].double() / 65536)
    low = torch.floor(bottom * beta[:, None, None].double() / 65536)
    return torch.floor((high + low + 2) / 4).clamp(0, 255).float()


def _cubic_weights(axis: Axis, *, exact: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the second of four neighbouring pixels, and their coefficients: int64 (K,), float32 (4, K)."""
    place = (axis.positions + 0.5) * axis.scale - 0.5
    place = place if exact else place.float()
    first = torch.floor(place)
    x = place - first
    x = ((x.float() + 1.0) - 1.0).double() if exact else x
    far, near = x + 1, 1 - x
    outer = ((CUBIC_A * far - 5 * CUBIC_A) * far + 8 * CUBIC_A) * far - 4 * CUBIC_A
    inner = ((CUBIC_A + 2) * x - (CUBIC_A + 3)) * x * x + 1
    other = ((CUBIC_A + 2) * near - (CUBIC_A + 3)) * near * near + 1
    last = -CUBIC_A * x * x * (x - 1) if exact else 1 - outer - inner - other
    weights = torch.stack([outer, inner, other, last])
    return first.long(), (weights.float() if exact else torch.round(weights * COEFFICIENT) / COEFFICIENT)


@cache
def has_exact_cubic() -> bool:
    """Return whether the installed OpenCV computes cubic interpolation of bytes with exact coefficients."""
    picture = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    expected = cv2.resize(picture, (43, 43), interpolation=cv2.INTER_CUBIC)
    before, after = (torch.tensor(float(size), dtype=torch.float64) for size in (60, 43))
    axis = Axis(before, after, torch.arange(43, dtype=torch.float64))
    found = [
        np.abs(_cubic(torch.from_numpy(picture)[None], axis, axis, exact=exact)[0].numpy() - expected).sum()
        for exact in (True, False)
    ]
    return bool(found[0] <= found[1])


def _cubic(images: torch.Tensor, down: Axis, across: Axis, *, exact: bool) -> torch.Tensor:
    first_row, beta = _cubic_weights(down, exact=exact)
    first_column, alpha = _cubic_weights(across, exact=exact)
    picked = images.index_select(1, down.neighbours((-1, 0, 1, 2), first_row))
    picked = picked.index_select(2, across.neighbours((-1, 0, 1, 2), first_column)).float()
    taps = torch.split(picked, alpha.shape[1], dim=2)
    columns, rows = (weights[:, :, None] for weights in (alpha, beta[:, :, None]))
    if not exact:  # all terms are multiples of 1 / 2048 / 2048, of which float64 holds the sums
        mixed = sum(tap.double() * column for tap, column in zip(taps, columns, strict=True))
        assert isinstance(mixed, torch.Tensor)
        total = sum(
            tap * row for tap, row in zip(torch.split(mixed, beta.shape[1], dim=1), rows, strict=True)
        )
        assert isinstance(total, torch.Tensor)
        return torch.round(total).clamp(0, 255).float()
    mixed = taps[0] * columns[0]
    for tap, column in zip(taps[1:], columns[1:], strict=True):
        mixed = _multiply_add(tap, column, mixed)
    above, upper, lower, below = torch.split(mixed, beta.shape[1], dim=1)
    first = _multiply_add(above, rows[0], upper * rows[1])
    total = first + _multiply_add(lower, rows[2], below * rows[3])
    return torch.round(total).clamp(0, 255)


def _multiply_add(left: torch.Tensor, right: torch.Tensor, addend: torch.Tensor) -> torch.Tensor:
    """Return ``left * right + addend`` in float32, rounded once, as processors do; the product is exact in float64."""
    return (left.double() * right.double() + addend.double()).float()


def _area_weights(axis: Axis, num_before: int) -> torch.Tensor:
    """Return the share of each pixel in each result: float32, shape (K, pixels)."""
    start = (axis.positions * axis.scale)[:, None]
    end = start + axis.scale
    pixels = torch.arange(num_before, dtype=torch.float64)[None]
    overlap = (torch.minimum(end, pixels + 1) - torch.maximum(start, pixels)).clamp(0, 1)
    overlap = torch.where(overlap > MIN_OVERLAP, overlap, 0.0)
    return (overlap / torch.minimum(axis.scale, axis.num_before - start)).float()


def _area(images: torch.Tensor, down: Axis, across: Axis) -> torch.Tensor:
    channels_first = images.permute(0, 3, 1, 2).float()
    mixed = channels_first @ _area_weights(across, images.shape[2]).T
    total = _area_weights(down, images.shape[1]) @ mixed
    halves = (down.scale == 2) & (across.scale == 2)  # for which OpenCV rounds halves up, else to even
    rounded = torch.where(halves, torch.floor(total + 0.5), torch.round(total))
    return rounded.clamp(0, 255).permute(0, 2, 3, 1)
