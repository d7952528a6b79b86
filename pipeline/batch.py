"""What a feed yields: the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True, slots=True)
class Batch:
    """Finished images with everything that is known of them. Owned by the consumer."""

    images: torch.Tensor
    """uint8 NHWC, or float32 NCHW when the plan normalises."""
    labels: torch.Tensor
    """int64, shape (N,); -1 where the index has no label."""
    keys: tuple[str, ...]
    """The key of the image that is shown; where a bad image was replaced, the replacement's."""
    epoch: int
    step: int
    """Number of the batch within its epoch, from 0."""
    replaced: np.ndarray
    """bool, shape (N,): True where a bad image was replaced. Metrics and audits leave these rows out."""
    masks: torch.Tensor | None = None
    """uint8, shape (N, H, W), where the index has masks."""
    boxes: tuple[np.ndarray, ...] | None = None
    """Per image float32 (n, 4) as x0, y0, x1, y1 in pixels of the finished image, where the index has boxes."""
    partner_labels: torch.Tensor | None = None
    """int64, shape (N,): labels of the images mixed in by MixUp or CutMix."""
    partner_weights: torch.Tensor | None = None
    """float32, shape (N,), 0..1: the partner's share of the target."""
    num_left_out: int = 0
    """Images that could not be used and are not here, where the plan says ``on_error: skip``."""

    def __len__(self) -> int:
        return len(self.keys)
