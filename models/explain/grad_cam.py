"""Batched Grad-CAM: a forward pass without gradients up to the target layer, then gradients of the rest.

With activations A (K channels) of the target layer and the logit y of a class, a map is
``ReLU(sum_k mean_hw(dy/dA_k) * A_k)`` (Selvaraju et al. 2017, equations 1 and 2). In eval mode the images
of a batch are independent, so one backward pass of the summed logits gives all gradients. No gradients are recorded
before the layer: memory holds the activations after it only, and a frozen backbone makes no difference.

Maps keep the resolution of the layer (such as 7 x 7) and are not scaled. The functions of ``maps`` are re-exported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from ...pipeline.errors import ModelError
from ..zoo.forward import eval_mode
from ..zoo.map_layout import MapLayout
from .activations import get_layer, layer_layout, record_activation
from .maps import is_empty, upsample
from .target_layer import find_target_layer

if TYPE_CHECKING:
    Targets = torch.Tensor | Callable[[torch.Tensor], torch.Tensor]

__all__ = [
    "CamResult",
    "GradCam",
    "find_target_layer",
    "grad_cam",
    "is_empty",
    "predicted",
    "upsample",
]


def predicted(logits: torch.Tensor) -> torch.Tensor:
    """Return the class with the highest logit, shape (N,): the usual callable target."""
    return logits.argmax(dim=1)


@dataclass(frozen=True, slots=True)
class CamResult:
    """Result of ``GradCam``; all tensors are detached and on the model's device."""

    logits: torch.Tensor
    """Output of the model, shape (N, K)."""
    targets: tuple[torch.Tensor, ...]
    """Explained classes per target set, int64, shape (N,)."""
    pre_relu: tuple[torch.Tensor, ...]
    """Maps before the ReLU per target set, float32 (N, h, w); negative values are evidence against the class."""
    activations_nchw: torch.Tensor
    """Output of the target layer as (N, C, h, w)."""

    @property
    def maps(self) -> tuple[torch.Tensor, ...]:
        """Grad-CAM maps per target set: float32 (N, h, w), non-negative, not resized or scaled."""
        return tuple(each.clamp_min(0) for each in self.pre_relu)

    @property
    def scores(self) -> tuple[torch.Tensor, ...]:
        """Logits of the explained classes per target set, float32, shape (N,)."""
        return tuple(self.logits.float().gather(1, each[:, None])[:, 0] for each in self.targets)


@contextmanager
def grad_cam(model: nn.Module, target_layer: str) -> Iterator[GradCam]:
    """Open a context for Grad-CAM on a model: eval mode inside, restored on exit, even after errors.

    Args:
        model: classifier that maps (N, C, H, W) to logits (N, K) and calls the layer once.
        target_layer: dotted name, for example from ``find_target_layer``. For ``features`` (or ``features.norm5``) of a
            torchvision DenseNet, which is followed by a functional ReLU, maps are of the values after that ReLU, as for
            networks with a ReLU layer.

    Raises:
        ModelError: no such layer.
    """
    get_layer(model, target_layer)
    with eval_mode(model):
        yield GradCam(model, target_layer, relu_follows=_relu_follows(model, target_layer))


@dataclass(frozen=True, slots=True)
class GradCam:
    """Grad-CAM of batches with one model; created by ``grad_cam``. Not thread-safe."""

    model: nn.Module
    name: str
    """Name of the target layer."""
    relu_follows: bool
    layouts: dict[tuple[int, int], MapLayout] = field(default_factory=dict, repr=False)
    """Layout of the layer's output by height and width of the images; determined on first use of a size."""

    def __call__(self, images_nchw: torch.Tensor, targets: Sequence[Targets]) -> CamResult:
        """Run the model once and compute one map per image and target set.

        Args:
            images_nchw: input of the model, shape (N, C, H, W), on its device; not modified.
            targets: target sets, each an integer tensor (N,) of classes 0..K-1 or a callable that returns one for the
                logits (N, K), such as ``predicted``.

        Raises:
            ModelError: the layer's output is not a spatial map, the layer is called more than once or does not affect the
                logits; the logits are not (N, K); a target set does not have one class in 0..K-1 per image.
        """
        with torch.inference_mode(False), torch.enable_grad():
            images = images_nchw.clone() if images_nchw.is_inference() else images_nchw.detach()
            layout = self._layout(images) if len(images) else None
            logits, activation = record_activation(
                self.model, self.name, images, relu_follows=self.relu_follows
            )
            chosen = tuple(_classes(each, logits.detach()) for each in targets)
            pre_relu = tuple(
                _weighted_channels(logits, activation, layout, classes, self.name, keep=number < len(chosen))
                for number, classes in enumerate(chosen, 1)
            )
            seen = activation.detach()
        return CamResult(logits.detach(), chosen, pre_relu, seen if layout is None else layout.to_nchw(seen))

    def _layout(self, images: torch.Tensor) -> MapLayout:
        """Determine the layout of the layer's output with the first image of a size."""
        size = int(images.shape[2]), int(images.shape[3])
        if size not in self.layouts:
            found = layer_layout(self.model, self.name, images[:1])
            if found is None:
                raise ModelError(self._no_map_message(images[:1]))
            self.layouts[size] = found
        return self.layouts[size]

    def _no_map_message(self, image: torch.Tensor) -> str:
        """Return an error message for a layer without a spatial map, with a layer that has one."""
        _, activation = record_activation(self.model, self.name, image)
        try:
            hint = f"name {find_target_layer(self.model, image)!r}"
        except ModelError:
            hint = "use another network, or larger images"
        return (
            f"target layer: expected a spatial map, such as the output of a convolution, got {tuple(activation.shape)} from "
            f"{self.name!r}, which does not respond to a patch that is moved over the image; {hint}"
        )


def _classes(targets: Targets, logits: torch.Tensor) -> torch.Tensor:
    """Check a target set against the logits; broadcasting a wrong shape would mix up images."""
    num_images, num_classes = logits.shape
    classes = targets if isinstance(targets, torch.Tensor) else targets(logits)
    if classes.shape != (num_images,) or classes.is_floating_point() or classes.dtype == torch.bool:
        raise ModelError(
            f"targets: expected one class per image, an integer tensor of shape ({num_images},), "
            f"got {classes.dtype} {tuple(classes.shape)}; give every image its class"
        )
    if num_images and (int(classes.min()) < 0 or int(classes.max()) >= num_classes):
        raise ModelError(
            f"targets: expected classes 0..{num_classes - 1}, got {int(classes.min())}.."
            f"{int(classes.max())}; exclude images without a label, and check the classes of the model"
        )
    return classes.to(device=logits.device, dtype=torch.int64)


def _weighted_channels(
    logits: torch.Tensor,
    activation: torch.Tensor,
    layout: MapLayout | None,
    classes: torch.Tensor,
    name: str,
    *,
    keep: bool,
) -> torch.Tensor:
    """Compute the gradients of the target logits and the weighted sum of channels, in float32: (N, h, w)."""
    chosen = logits.gather(1, classes[:, None]).sum()
    gradient = None
    if chosen.requires_grad:
        (gradient,) = torch.autograd.grad(chosen, activation, retain_graph=keep, allow_unused=True)
    if gradient is None:
        raise ModelError(
            f"target layer: expected a layer that affects the logits, got {name!r}, which does not; "
            "name another, or check that the model's head does not detach or disable gradients"
        )
    if layout is None:  # no images
        return activation.new_zeros((0, 1, 1), dtype=torch.float32)
    if not layout.fits(activation):
        raise ModelError(
            f"target layer: expected the same layout for every batch, got {tuple(activation.shape)} from {name!r}; "
            "name a layer whose output shape depends only on the image size"
        )
    gradient_map = layout.to_nchw(gradient)
    if layout.num_prefix and not gradient_map.any() and gradient[:, : layout.num_prefix].any():
        raise ModelError(
            f"target layer: expected a layer whose patch tokens affect the logits, got {name!r}, after which only the "
            "class token does; name a layer before the last attention, such as the first norm of the last block"
        )
    weights = gradient_map.float().mean(dim=(2, 3))
    return torch.einsum("nk,nkhw->nhw", weights, layout.to_nchw(activation.detach()).float())


def _relu_follows(model: nn.Module, name: str) -> bool:
    from torchvision.models import DenseNet

    owner = name.removesuffix(".norm5").rpartition("features")
    if owner[1] != "features" or owner[2]:
        return False
    return isinstance(model.get_submodule(owner[0].rstrip(".")), DenseNet)
