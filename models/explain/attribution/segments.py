"""Segments of an image, which LIME and Kernel SHAP remove as a whole: superpixels, or the cells of a grid."""

from __future__ import annotations

import math

import numpy as np
import torch


def superpixels(image_nchw: torch.Tensor, num: int) -> torch.Tensor:
    """Return about ``num`` superpixels of an image (1, C, H, W): int64 (H, W), numbered from 0.

    SLIC (Achanta et al., TPAMI 2012) of scikit-image in Lab, LIME's usual choice; images without three channels count as
    gray. An image without structure, of which SLIC makes a few segments only, gets the cells of a grid.
    """
    from skimage.segmentation import slic

    pixels = image_nchw[0].detach().double().cpu()
    if len(pixels) != 3:
        pixels = pixels.mean(dim=0, keepdim=True).expand(3, -1, -1)
    low, high = pixels.amin(), pixels.amax()
    scaled = ((pixels - low) / (high - low).clamp_min(1e-12)).permute(1, 2, 0).numpy()
    found = slic(scaled, n_segments=num, compactness=10.0, start_label=0, channel_axis=-1)
    _, numbered = np.unique(found, return_inverse=True)
    if numbered.max() + 1 < num / 2:
        side = math.isqrt(num)
        return grid(found.shape[0], found.shape[1], side, side)
    return torch.from_numpy(numbered.reshape(found.shape).astype(np.int64))


def grid(height: int, width: int, rows: int, columns: int) -> torch.Tensor:
    """Return the cells of a grid as segments: int64 (H, W), numbered in reading order."""
    down, across = torch.arange(height) * rows // height, torch.arange(width) * columns // width
    return down[:, None] * columns + across
