"""Forward passes that leave a model as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from ...pipeline.errors import ModelError
from .channels import num_input_channels

AUXILIARY_WEIGHT = 0.3
"""Weight of the loss of each auxiliary head (Szegedy et al., "Going Deeper with Convolutions", section 5)."""


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode and restore the training flag of every module on exit."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


def model_inputs(
    images: torch.Tensor, device: torch.device, memory_format: torch.memory_format = torch.channels_last
) -> torch.Tensor:
    """Return a batch's images as a model takes them, on its device: uint8 NHWC becomes float32 NCHW in 0..1."""
    images = images.to(device, non_blocking=True)
    if images.dtype == torch.uint8:
        images = images.permute(0, 3, 1, 2).float().div_(255)
    return images.contiguous(memory_format=memory_format)


def run_model(model: nn.Module, images: torch.Tensor, *, features_only: bool = False) -> Any:
    """Run a forward pass; an unsupported image size raises ModelError.

    Args:
        model: any classifier.
        images: (N, C, H, W).
        features_only: stop before the head in timm models, with ``forward_features``.

    Raises:
        ModelError: the model does not accept the size or number of channels of the images.
    """
    has_boundary = features_only and hasattr(model, "pretrained_cfg") and hasattr(model, "forward_features")
    try:
        return cast("Any", model).forward_features(images) if has_boundary else model(images)
    except (AssertionError, IndexError, RuntimeError, ValueError) as error:
        if isinstance(error, ModelError | torch.OutOfMemoryError) or "out of memory" in str(error):
            raise
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        size = expected_input_size(model)
        expected = f"images of {size[0]} x {size[1]} pixels, for which {type(model).__name__} was built" if size else (
            f"images that {type(model).__name__} accepts"
        )  # fmt: skip
        channels, height, width = images.shape[1:]
        if channels != (accepted := num_input_channels(model)):
            plural = "" if accepted == 1 else "s"
            raise ModelError(
                f"model: expected images of {accepted} channel{plural}, got {channels}; write in_channels: {channels} in the "
                f"model, or let the plan make {accepted}, such as ToGray: {{num_output_channels: {accepted}, p: 1.0}}"
            ) from error
        raise ModelError(
            f"model: expected {expected}, got {height} x {width} pixels with {channels} channels ({reason}); "
            "change the size in the plan, or choose a model for this size"
        ) from error


def expected_input_size(model: nn.Module) -> tuple[int, int] | None:
    """Return the input height and width that a model declares; None if it declares none."""
    stated = getattr(getattr(model, "patch_embed", None), "img_size", None)
    stated = stated or getattr(model, "image_size", None)
    if stated is None:
        stated = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (None,))[1:] or None
    if isinstance(stated, int):
        return stated, stated
    return (int(stated[0]), int(stated[1])) if stated else None


def split_outputs(outputs: Any) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Split the output of a classifier into the logits and the logits of its auxiliary heads.

    torchvision's GoogLeNet and Inception v3 return a tuple in training mode if they were built with auxiliary heads.
    """
    if isinstance(outputs, torch.Tensor):
        return outputs, ()
    main, *others = outputs
    return main, tuple(each for each in others if each is not None)
