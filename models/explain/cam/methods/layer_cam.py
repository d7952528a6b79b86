"""LayerCAM: positive gradients and activations multiplied cell by cell, sharp in earlier layers, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..recording import Recording


def layer_cam(recording: Recording, classes: torch.Tensor) -> torch.Tensor:
    """Return ``sum_k relu(dy/dA_k) * A_k`` (Jiang et al., IEEE TIP 2021, equations 3 to 5, before the ReLU)."""
    positive = recording.gradients(classes).clamp_min(0)
    return torch.einsum("nkhw,nkhw->nhw", positive, recording.activations_nchw)
