"""CAM: the weights of the linear layer behind average pooling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .....pipeline.errors import ModelError

if TYPE_CHECKING:
    from ..recording import Recording


def cam(recording: Recording, classes: torch.Tensor) -> torch.Tensor:
    """Return ``sum_k w_k A_k`` with the weights of the class (Zhou et al., CVPR 2016, equation 2).

    Grad-CAM is the same map divided by the number of cells.

    Raises:
        ModelError: average pooling and a linear layer do not follow the target layer.
    """
    if recording.head_weight is None:
        raise ModelError(
            "method: expected average pooling and a linear layer after the target layer, as cam requires, got another "
            "head; use grad-cam, which works for every head"
        )
    weights = recording.head_weight[classes].float()
    return torch.einsum("nk,nkhw->nhw", weights, recording.activations_nchw)
