"""Replace a region's pixels: by a constant, by blurred pixels, by another image's, or by what lies around them.

Images are inputs of a model, float (N, C, H, W); masks are True where pixels are replaced, (H, W) for all images or
(N, H, W). Nothing is changed in place, and no result depends on the other images of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
    unique, which = np.unique(masks_nhw.reshape(len(masks_nhw), -1), axis=0, return_inverse=True)
    for number, flat in enumerate(unique):
        if flat.any():
            rows = np.flatnonzero(which.reshape(-1) == number)
            pixels[rows] = _solve(pixels[rows], flat.reshape(masks_nhw.shape[1:]))
    return torch.where(_per_image(images, masks), torch.from_numpy(pixels).to(images), images)


_NEIGHBOURS = tuple(
    (down, right, 1 / 6 if down * right == 0 else 1 / 12)
    for down in (-1, 0, 1)
    for right in (-1, 0, 1)
    if (down, right) != (0, 0)
)


def _solve(pixels: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Impute the masked pixels of images (N, C, H, W) that share a mask (H, W)."""
    from scipy.sparse import csc_array
    from scipy.sparse.linalg import splu

    if mask.all():
        return np.zeros_like(pixels)
    down, right = np.nonzero(mask)
    number = np.full(mask.shape, -1)
    number[down, right] = np.arange(len(down))
    num_values = pixels.shape[0] * pixels.shape[1]
    known = np.zeros((len(down), num_values))
    rows, columns, values = [np.arange(len(down))], [np.arange(len(down))], [np.zeros(len(down))]
    for step_down, step_right, weight in _NEIGHBOURS:
        y, x = down + step_down, right + step_right
        there = np.flatnonzero((y >= 0) & (y < mask.shape[0]) & (x >= 0) & (x < mask.shape[1]))
        values[0][there] += weight
        unknown = there[mask[y[there], x[there]]]
        rows.append(unknown)
        columns.append(number[y[unknown], x[unknown]])
        values.append(np.full(len(unknown), -weight))
        given = there[~mask[y[there], x[there]]]
        known[given] += weight * pixels[:, :, y[given], x[given]].reshape(num_values, len(given)).T
    shape = (len(down), len(down))
    matrix = csc_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape)
    filled = pixels.copy()
    solved = cast("Any", splu(matrix)).solve(known)
    filled[:, :, down, right] = solved.T.reshape(*pixels.shape[:2], len(down))
    return filled


def _per_image(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return masks as bool (N, 1, H, W)."""
    masks = masks.to(device=images.device, dtype=torch.bool)
    return masks.expand(len(images), *masks.shape[-2:])[:, None]
