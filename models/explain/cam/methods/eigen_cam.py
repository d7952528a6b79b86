"""Eigen-CAM: the first principal component of the activations, whatever the class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..recording import Recording


def eigen_cam(recording: Recording, classes: torch.Tensor, centre: bool = False) -> torch.Tensor:  # noqa: ARG001
    """Return ``O v_1`` with the activations O as (cells, channels) and their first right singular vector.

    Muhammad and Yeasin, IJCNN 2020, equation 3. A singular vector has no sign of its own; it is chosen so that the map's
    sum is positive, or without a sum, its largest absolute value. Activations after a ReLU then give a map without
    negative values.

    Args:
        recording: of a batch.
        classes: not used, since the map shows what the layer responds to most.
        centre: subtract each channel's mean first, as pytorch-grad-cam does and the paper does not.
    """
    activations = recording.activations_nchw
    cells = activations.flatten(2).transpose(1, 2).double()
    if centre:
        cells = cells - cells.mean(1, keepdim=True)
    # The Gram matrix of the cells has the same left singular vectors and is small.
    values, vectors = torch.linalg.eigh(cells @ cells.transpose(1, 2))
    maps = vectors[..., -1] * values[:, -1:].clamp_min(0).sqrt()
    total, largest = maps.sum(1), maps.gather(1, maps.abs().argmax(1, keepdim=True))[:, 0]
    decisive = total.abs() > 1e-9 * maps.abs().sum(1)
    sign = torch.where(torch.where(decisive, total, largest) < 0, -1.0, 1.0)
    signed: torch.Tensor = (maps * sign[:, None]).float()
    return signed.reshape(-1, *activations.shape[2:])
