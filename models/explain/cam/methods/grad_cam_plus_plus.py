"""Grad-CAM++: positive gradients, weighted so that each occurrence of an object counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..recording import Recording


def grad_cam_plus_plus(recording: Recording, classes: torch.Tensor, eps: float = 0.0) -> torch.Tensor:
    """Return ``sum_k w_k A_k``, ``w_k = sum_hw(a relu(g))``, ``a = g^2 / (2 g^2 + sum_hw(A_k) g^3)``, with gradients g.

    Chattopadhay et al., WACV 2018, equations 5 and 19. The paper explains the exponential of the logit; its factor, equal
    in all cells and channels, is left out.

    Args:
        recording: of a batch.
        classes: (N,).
        eps: added to the denominator. pytorch-grad-cam adds 1e-6, which decides where squared gradients are as small.
    """
    activations = recording.activations_nchw
    gradients = recording.gradients(classes)
    positive = gradients.clamp_min(0)
    squares = positive.square()
    total = activations.sum((2, 3), keepdim=True)
    denominator = 2 * squares + total * squares * positive + eps
    shares = torch.where(positive > 0, squares / denominator, 0)
    return torch.einsum("nk,nkhw->nhw", (shares * positive).sum((2, 3)), activations)
