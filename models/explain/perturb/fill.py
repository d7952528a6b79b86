"""Replace a region's pixels: by a constant, by blurred pixels, by another image's, or by what lies around them.

Images are inputs of a model, float (N, C, H, W); masks are True where pixels are replaced, (H, W) for all images or
(N, H, W). Nothing is changed in place, and no result depends on the other images of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray

Removal = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Replaces the pixels of images (N, C, H, W) inside masks (H, W) or (N, H, W)."""
TELEA_RADIUS = 3.0
"""Pixels around each that Telea's method weighs; OpenCV's example uses 3."""


def fill_constant(images: torch.Tensor, masks: torch.Tensor, value: float | None = 0.0) -> torch.Tensor:
    """Fill with a constant: 0 is the data set's channel mean after normalisation. None takes each image's channel means."""
    constant: torch.Tensor | float = images.mean(dim=(2, 3), keepdim=True) if value is None else value
    return torch.where(_per_image(images, masks), torch.as_tensor(constant).to(images), images)


def blur(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur images with a Gaussian of a standard deviation in pixels, cut off at three; edges are reflected."""
    reach = max(1, math.ceil(3 * sigma))
    positions = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-(positions**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).repeat(images.shape[1], 1, 1, 1)
    for axis, shape in ((2, (1, 1, -1, 1)), (3, (1, 1, 1, -1))):
        padding = [0, 0, reach, reach] if axis == 2 else [reach, reach, 0, 0]
        mode = "reflect" if reach < images.shape[axis] else "replicate"
        padded = functional.pad(images, padding, mode=mode)
        images = functional.conv2d(
            padded, kernel.reshape(kernel.shape[0], *shape[1:]), groups=images.shape[1]
        )
    return images


def fill_blurred(images: torch.Tensor, masks: torch.Tensor, sigma: float = 8.0) -> torch.Tensor:
    """Fill with the blurred image."""
    return torch.where(_per_image(images, masks), blur(images, sigma), images)


def paste(images: torch.Tensor, sources: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Paste the pixels of other images, (N, C, H, W) or (1, C, H, W), at the same place."""
    return torch.where(_per_image(images, masks), sources, images)


def inpaint_telea(images: torch.Tensor, masks: torch.Tensor, radius: float = TELEA_RADIUS) -> torch.Tensor:
    """Inpaint each channel by the fast marching method (Telea, Journal of Graphics Tools 2004), with OpenCV."""
    masks_nhw = _per_image(images, masks)[:, 0].cpu().numpy().astype(np.uint8)
    pixels = images.detach().float().cpu().numpy()
    filled = [
        [cv2.inpaint(channel, mask, radius, cv2.INPAINT_TELEA) for channel in image]
        for image, mask in zip(pixels, masks_nhw, strict=True)
    ]
    return torch.where(
        _per_image(images, masks), torch.from_numpy(np.asarray(filled, np.float32)).to(images), images
    )


def impute_linear(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Fill so that each pixel is the weighted mean of its eight neighbours, 1/6 those beside it and 1/12 diagonal ones.

    Noisy linear imputation (Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML
    2022, section 4) without its noise: all pixels of a region are unknowns of one sparse system of equations. At the edges of the image
    the weights are divided by their sum. An image that is masked as a whole becomes 0.
    """
    masks_nhw = _per_image(images, masks)[:, 0].cpu().numpy()
    pixels = images.detach().double().cpu().numpy()
    sharing: dict[bytes, list[int]] = {}
    for row, mask in enumerate(masks_nhw):
        sharing.setdefault(mask.tobytes(), []).append(row)
    for rows in sharing.values():
        if masks_nhw[rows[0]].any():
            pixels[rows] = _solve(pixels[rows], masks_nhw[rows[0]])
    return torch.where(_per_image(images, masks), torch.from_numpy(pixels).to(images), images)


_NEIGHBOURS = tuple(
    (down, right, 1 / 6 if down * right == 0 else 1 / 12)
    for down in (-1, 0, 1)
    for right in (-1, 0, 1)
    if (down, right) != (0, 0)
)


@dataclass(frozen=True, slots=True)
class _System:
    """Equations of a mask's pixels: ``factors.solve(given @ known pixels)`` are the missing ones."""

    factors: Any
    given: Any
    """Weights of the known pixels, sparse (missing, H * W)."""
    missing: NDArray[np.int64]
    """Their places in the flattened image."""


@lru_cache(maxsize=8)
def _system(mask_bytes: bytes, shape: tuple[int, int]) -> _System:
    """Set up and factorise the equations of a mask, which the same region of other images shares."""
    from scipy.sparse import csc_array, csr_array
    from scipy.sparse.linalg import splu

    mask = np.frombuffer(mask_bytes, np.bool_).reshape(shape)
    down, right = np.nonzero(mask)
    missing, num = np.flatnonzero(mask), len(down)
    totals, parts = np.zeros(num), []
    for step_down, step_right, weight in _NEIGHBOURS:
        y, x = down + step_down, right + step_right
        there = np.flatnonzero((y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1]))
        totals[there] += weight
        parts.append((there, y[there] * shape[1] + x[there], np.full(len(there), weight)))
    rows, columns, weights = (np.concatenate(each) for each in zip(*parts, strict=True))
    unknown = mask.ravel()[columns]
    number = np.full(mask.size, -1)
    number[missing] = np.arange(num)
    diagonal = np.arange(num)
    places = (
        np.concatenate((diagonal, rows[unknown])),
        np.concatenate((diagonal, number[columns[unknown]])),
    )
    matrix = csc_array((np.concatenate((totals, -weights[unknown])), places), shape=(num, num))
    given = csr_array((weights[~unknown], (rows[~unknown], columns[~unknown])), shape=(num, mask.size))
    factors = cast("Any", splu)(
        matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    return _System(factors, given, missing)


def _solve(pixels: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Impute the masked pixels of images (N, C, H, W) that share a mask (H, W)."""
    if mask.all():
        return np.zeros_like(pixels)
    system = _system(mask.tobytes(), (mask.shape[0], mask.shape[1]))
    flat = pixels.reshape(-1, mask.size).copy()
    flat[:, system.missing] = system.factors.solve(np.asarray(system.given @ flat.T)).T
    return flat.reshape(pixels.shape)


def _per_image(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return masks as bool (N, 1, H, W)."""
    masks = masks.to(device=images.device, dtype=torch.bool)
    return masks.expand(len(images), *masks.shape[-2:])[:, None]
