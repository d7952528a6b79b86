"""Score-CAM: each channel as a mask of the image, weighted by the score of what it lets through; no gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from ..recording import Recording

MASKS_AT_ONCE = 64


def score_cam(recording: Recording, classes: torch.Tensor) -> torch.Tensor:
    """Return ``sum_k softmax_k(y(x * mask_k)) A_k`` with the channel upsampled and scaled to 0..1 as mask.

    Wang et al., CVPR Workshops 2020, algorithm 1. It costs as many forward passes per image as the layer has channels.
    The score of the baseline image, which the paper subtracts, cancels in the softmax.
    """
    activations, images = recording.activations_nchw, recording.images_nchw
    size = (int(images.shape[2]), int(images.shape[3]))
    rows = []
    for row, (image, channels, wanted) in enumerate(zip(images, activations, classes.tolist(), strict=True)):
        masks = functional.interpolate(channels[:, None], size=size, mode="bilinear", align_corners=False)
        low, high = masks.amin((1, 2, 3), keepdim=True), masks.amax((1, 2, 3), keepdim=True)
        masks = (masks - low) / torch.where(high > low, high - low, 1)
        scores = [
            recording.score((image * masks[first : first + MASKS_AT_ONCE]).to(images.dtype), row)[:, wanted]
            for first in range(0, len(masks), MASKS_AT_ONCE)
        ]
        rows.append(torch.cat(scores).float().softmax(0))
    return torch.einsum("nk,nkhw->nhw", torch.stack(rows), activations)
