"""Grad-CAM: channels weighted by their mean gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..recording import Recording


def grad_cam(recording: Recording, classes: torch.Tensor) -> torch.Tensor:
    """Return ``sum_k mean_hw(dy/dA_k) A_k`` (Selvaraju et al., ICCV 2017, equations 1 and 2, before the ReLU)."""
    weights = recording.channel_gradients(classes)
    return torch.einsum("nk,nkhw->nhw", weights, recording.activations_nchw)
