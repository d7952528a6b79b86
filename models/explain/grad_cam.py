"""Grad-CAM of batches (Selvaraju et al., ICCV 2017); other methods come from ``cam.explainer.class_activation_maps``."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import nn

from .cam.explainer import Cam, CamResult, class_activation_maps, predicted
from .maps import is_empty, upsample
from .target_layer import find_target_layer

__all__ = ["Cam", "CamResult", "find_target_layer", "grad_cam", "is_empty", "predicted", "upsample"]


def grad_cam(model: nn.Module, target_layer: str) -> AbstractContextManager[Cam]:
    """Open a context for Grad-CAM on a model; see ``class_activation_maps``.

    Raises:
        ModelError: no such layer, or a model whose layers cannot be observed.
    """
    return class_activation_maps(model, target_layer)
