"""Class activation maps of batches: one forward pass, and maps of any classes by one of the methods.

The model runs without gradients up to the target layer, whose output is a leaf; a frozen network makes no difference, and
memory holds the activations behind the layer only. Where average pooling and a linear layer follow, no gradients are
recorded at all: they are the layer's weights.

Maps keep the resolution of the layer (such as 7 x 7) and are not scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from ....pipeline.errors import ModelError
from ...zoo.forward import eval_mode
from ...zoo.map_layout import MapLayout
from ..activations import layer_layout
from ..target_layer import find_target_layer
from .linear_head import LinearHead, find_linear_head
from .recorder import Recorded, get_layer, record_activation
from .recording import Recording
from .registry import DEFAULT, CamMethod, find_method
from .wrappers import uncompiled, unwrap, unwrapped_name

if TYPE_CHECKING:
    Targets = torch.Tensor | Callable[[torch.Tensor], torch.Tensor]


def predicted(logits: torch.Tensor) -> torch.Tensor:
    """Return the class with the highest logit, shape (N,): the usual callable target."""
    return logits.argmax(dim=1)


@dataclass(frozen=True, slots=True)
class CamResult:
    """Logits and maps of a batch; all tensors are detached and on the model's device."""

    logits: torch.Tensor
    """Output of the model, shape (N, K); of a segmentation model summed over the region."""
    targets: tuple[torch.Tensor, ...]
    """Explained classes per target set, int64, shape (N,)."""
    pre_relu: tuple[torch.Tensor, ...]
    """Maps before the ReLU per target set, float32 (N, h, w); negative values are evidence against the class."""
    activations_nchw: torch.Tensor
    """Output of the target layer as (N, C, h, w)."""
    weight: torch.Tensor | None = None
    """Weight (K, C) of the linear layer, if only it and average pooling follow the target layer; None otherwise."""

    @property
    def maps(self) -> tuple[torch.Tensor, ...]:
        """Rectified maps per target set: float32 (N, h, w), non-negative, not resized or scaled."""
        return tuple(each.clamp_min(0) for each in self.pre_relu)

    @property
    def scores(self) -> tuple[torch.Tensor, ...]:
        """Logits of the explained classes per target set, float32, shape (N,)."""
        return tuple(self.logits.float().gather(1, each[:, None])[:, 0] for each in self.targets)


@contextmanager
def class_activation_maps(model: nn.Module, target_layer: str, method: str = DEFAULT) -> Iterator[Cam]:
    """Open a context for maps of a model: eval mode inside, restored on exit, even after errors.

    Args:
        model: maps (N, C, H, W) to logits (N, K), or (N, K, H, W) for segmentation, and calls the layer once. Compiled
            and parallel models are explained by the network inside them.
        target_layer: dotted name, for example from ``find_target_layer``. For ``features`` (or ``features.norm5``) of a
            torchvision DenseNet, which is followed by a functional ReLU, maps are of the values after that ReLU, as for
            networks with a ReLU layer.
        method: one of ``registry.METHODS``, or ``module:function``.

    Raises:
        ModelError: no such layer, or a model whose layers cannot be observed.
        PlanError: no such method.
    """
    found = find_method(method)
    model, name = unwrap(model), unwrapped_name(target_layer)
    get_layer(model, name)
    with eval_mode(model), uncompiled(model):
        yield Cam(model, name, found, relu_follows=_relu_follows(model, name))


@dataclass(frozen=True, slots=True)
class Cam:
    """Maps of batches with one model and method; created by ``class_activation_maps``. Not thread-safe."""

    model: nn.Module
    name: str
    """Name of the target layer."""
    method: CamMethod
    relu_follows: bool
    layers: dict[tuple[int, int], tuple[MapLayout, LinearHead | None]] = field(
        default_factory=dict, repr=False
    )
    """Layout of the layer's output and linear head by height and width of the images; determined on first use."""

    def __call__(
        self, images_nchw: torch.Tensor, targets: Sequence[Targets], regions: torch.Tensor | None = None
    ) -> CamResult:
        """Run the model once and compute one map per image and target set.

        Args:
            images_nchw: input of the model, shape (N, C, H, W), on its device; not modified.
            targets: target sets, each an integer tensor (N,) of classes 0..K-1 or a callable that returns one for the
                logits (N, K), such as ``predicted``.
            regions: for a segmentation model, the pixels whose logits are explained, bool (N, H, W); None for all.

        Raises:
            ModelError: the layer's output is not a spatial map, the layer is called more than once or does not affect the
                logits; the output is no logits; a target set does not have one class in 0..K-1 per image.
        """
        with torch.inference_mode(False), torch.enable_grad():
            images = images_nchw.clone() if images_nchw.is_inference() else images_nchw.detach()
            if not len(images):
                return self._of_no_images(images, targets)
            with full_precision(images):
                layout, head = self._layer_of(images)
            recorded, is_linear = self._record(images, layout, head)
            scores, weight = recorded.scores(regions), None
            if head is not None and is_linear:
                weight = head.layer.weight.detach()
                if scores.dtype in (torch.bfloat16, torch.float16):
                    with full_precision(images):
                        scores = head.scores(layout.to_nchw(recorded.activation))
            score = self._scorer(images, regions)
            recording = Recording(images, recorded, scores, layout, self.name, weight, score)
            chosen = tuple(_classes(each, scores.detach()) for each in targets)
            with full_precision(images):
                signed = tuple(self.method(recording, classes).detach() for classes in chosen)
        activations = layout.to_nchw(recorded.activation.detach())
        return CamResult(scores.detach(), chosen, signed, activations, weight)

    def _record(
        self, images: torch.Tensor, layout: MapLayout, head: LinearHead | None
    ) -> tuple[Recorded, bool]:
        """Run the model; returns whether the closed form of a linear head holds for this batch, so without gradients."""
        if head is not None:
            recorded = record_activation(
                self.model, self.name, images, relu_follows=self.relu_follows, gradients=False
            )
            self._check_layout(recorded, layout)
            with full_precision(images):
                fits = head.explains(recorded.scores(), layout.to_nchw(recorded.activation))
            if fits and not recorded.is_changed:
                return recorded, True
        recorded = record_activation(self.model, self.name, images, relu_follows=self.relu_follows)
        self._check_layout(recorded, layout)
        return recorded, False

    def _check_layout(self, recorded: Recorded, layout: MapLayout) -> None:
        if not layout.fits(recorded.activation):
            raise ModelError(
                f"target layer: expected the same layout for every batch, got {tuple(recorded.activation.shape)} from "
                f"{self.name!r}; name a layer whose output shape depends only on the image size"
            )

    def _scorer(
        self, images: torch.Tensor, regions: torch.Tensor | None
    ) -> Callable[[torch.Tensor, int], torch.Tensor]:
        """Return a function that scores variants of an image of the batch in the caller's precision."""
        kind = images.device.type
        precision, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)

        def score(some: torch.Tensor, row: int) -> torch.Tensor:
            region = None if regions is None else regions[row].expand(len(some), -1, -1)
            with torch.no_grad(), torch.autocast(kind, precision, enabled=enabled):
                return record_activation(self.model, self.name, some, gradients=False).scores(region)

        return score

    def _of_no_images(self, images: torch.Tensor, targets: Sequence[Targets]) -> CamResult:
        recorded = record_activation(self.model, self.name, images)
        logits = recorded.scores().detach()
        chosen = tuple(_classes(each, logits) for each in targets)
        empty = logits.new_zeros((0, 1, 1), dtype=torch.float32)
        return CamResult(logits, chosen, tuple(empty for _ in chosen), recorded.activation.detach())

    def _layer_of(self, images: torch.Tensor) -> tuple[MapLayout, LinearHead | None]:
        """Determine the layout of the layer's output, and the linear head, with the first image of a size."""
        size = int(images.shape[2]), int(images.shape[3])
        if size not in self.layers:
            found = layer_layout(self.model, self.name, images[:1])
            if found is None:
                raise ModelError(self._no_map_message(images[:1]))
            head = find_linear_head(self.model, self.name, found, images[:1], relu_follows=self.relu_follows)
            self.layers[size] = found, head
        return self.layers[size]

    def _no_map_message(self, image: torch.Tensor) -> str:
        """Return an error message for a layer without a spatial map, with a layer that has one."""
        activation = record_activation(self.model, self.name, image).activation
        try:
            hint = f"name {find_target_layer(self.model, image)!r}"
        except ModelError:
            hint = "use another network, or larger images"
        return (
            f"target layer: expected a spatial map, such as the output of a convolution, got {tuple(activation.shape)} from "
            f"{self.name!r}, which does not respond to a patch that is moved over the image; {hint}"
        )


def full_precision(images: torch.Tensor) -> torch.autocast:
    """Return a context in which sums over channels and cells are not rounded by the caller's autocast."""
    return torch.autocast(images.device.type, enabled=False)


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


def _relu_follows(model: nn.Module, name: str) -> bool:
    from torchvision.models import DenseNet

    owner = name.removesuffix(".norm5").rpartition("features")
    if owner[1] != "features" or owner[2]:
        return False
    return isinstance(model.get_submodule(owner[0].rstrip(".")), DenseNet)
