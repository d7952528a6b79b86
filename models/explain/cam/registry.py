"""Methods by name: those of this package, and functions of others by import path."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, cast

from ....pipeline.config.imports import AllowedModules, import_object
from ....pipeline.errors import PlanError, did_you_mean
from ....pipeline.text import quoted

if TYPE_CHECKING:
    import torch

    from .recording import Recording

CamMethod = Callable[["Recording", "torch.Tensor"], "torch.Tensor"]
"""Maps a recording and a class per image, int64 (N,), to signed maps, float32 (N, h, w)."""

DEFAULT = "grad-cam"
METHODS = {
    "cam": "cam",
    DEFAULT: "grad_cam",
    "grad-cam++": "grad_cam_plus_plus",
    "hires-cam": "hires_cam",
    "xgrad-cam": "xgrad_cam",
    "layer-cam": "layer_cam",
    "eigen-cam": "eigen_cam",
    "score-cam": "score_cam",
}
"""Module in ``methods``, with the function of the same name, of each method."""
ENTRY_POINTS = "lightwell.cams"
"""Group of entry points under which packages register functions that job files may name."""


def check_method(name: str, allowed: AllowedModules | None = None) -> None:
    """Check the name of a method: one of `METHODS`, or an allowed ``module:function``; nothing is imported.

    Args:
        name: the method.
        allowed: modules that may be imported; None for all, in Python.

    Raises:
        PlanError: it is neither.
    """
    if name in METHODS:
        return
    if ":" not in name:
        raise PlanError(
            f"method: expected one of {', '.join(METHODS)} or module:function, got {quoted(name)}; "
            f"{did_you_mean(name, METHODS) or 'choose one of these'}"
        )
    if allowed is not None:
        allowed.check(name, "method", group=ENTRY_POINTS)


def find_method(name: str) -> CamMethod:
    """Return a method by name or import path.

    Raises:
        PlanError: there is no such method, or it is not a function.
    """
    check_method(name)
    if name in METHODS:
        module = import_module(f".methods.{METHODS[name]}", __package__)
        return cast("CamMethod", getattr(module, METHODS[name]))
    found = import_object(name, "method")
    if not callable(found):
        raise PlanError(
            f"method: expected a function of a recording and classes, got {type(found).__name__} from {quoted(name)}; "
            "name a function"
        )
    return cast("CamMethod", found)
