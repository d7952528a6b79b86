"""HiResCAM: gradients and activations multiplied cell by cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..recording import Recording


def hires_cam(recording: Recording, classes: torch.Tensor) -> torch.Tensor:
    """Return ``sum_k dy/dA_k * A_k`` (Draelos and Carin, "Use HiResCAM instead of Grad-CAM", 2020, equation 6).

    Where a linear head follows, the map's sum is the logit without its bias.
    """
    return torch.einsum("nkhw,nkhw->nhw", recording.gradients(classes), recording.activations_nchw)
