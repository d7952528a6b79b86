"""XGrad-CAM: gradients averaged with the activations as weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..recording import Recording


def xgrad_cam(recording: Recording, classes: torch.Tensor) -> torch.Tensor:
    """Return ``sum_k w_k A_k`` with ``w_k = sum_hw(A_k dy/dA_k) / sum_hw(A_k)`` (Fu et al., BMVC 2020, equation 7).

    Channels whose activations sum to 0 have no weight.
    """
    activations = recording.activations_nchw
    total = activations.sum((2, 3))
    weighted = torch.einsum("nkhw,nkhw->nk", recording.gradients(classes), activations)
    weights = torch.where(total == 0, 0, weighted / total)
    return torch.einsum("nk,nkhw->nhw", weights, activations)
