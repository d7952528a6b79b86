"""Grad-CAM by the batch: one forward without gradients up to a layer, then the gradient of the head alone.

With activations A (K channels) of the target layer and the logit y of a class, a map is
``ReLU(sum_k mean_hw(dy/dA_k) * A_k)`` (Selvaraju et al. 2017, equations 1 and 2). In eval mode the images
of a batch do not touch each other, so one backward pass of the summed logits gives the gradients of all.
Nothing before the layer is recorded: memory holds one layer, and frozen trunks make no difference.

Maps stay small (7 x 7, say) and are not scaled; ``maps`` measures them, and its names are to be had here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..pipeline.errors import ModelError, nearest
from .maps import blank, border_mass, concentration, peak, upsample
from .zoo import head_module

if TYPE_CHECKING:
    Targets = torch.Tensor | Callable[[torch.Tensor], torch.Tensor]

__all__ = [
    "CamResult",
    "GradCam",
    "blank",
    "border_mass",
    "concentration",
    "find_target_layer",
    "grad_cam",
    "peak",
    "predicted",
    "upsample",
]


def predicted(logits: torch.Tensor) -> torch.Tensor:
    """Choose the class with the greatest logit, shape (N,): the usual callable target."""
    return logits.argmax(dim=1)


@dataclass(frozen=True, slots=True)
class CamResult:
    """What one call of ``GradCam`` returns; all tensors detached, on the model's device."""

    logits: torch.Tensor
    """Shape (N, K), as the model gave them."""
    targets: tuple[torch.Tensor, ...]
    """Per target set the explained classes, int64, shape (N,)."""
    signed: tuple[torch.Tensor, ...]
    """Per target set float32 (N, h, w) before the ReLU: negative where the evidence is against the class."""

    @property
    def maps(self) -> tuple[torch.Tensor, ...]:
        """Grad-CAM per target set: float32 (N, h, w), not negative, neither enlarged nor scaled."""
        return tuple(each.clamp_min(0) for each in self.signed)

    @property
    def scores(self) -> tuple[torch.Tensor, ...]:
        """Logits of the explained classes per target set, float32 (N,)."""
        return tuple(self.logits.float().gather(1, each[:, None])[:, 0] for each in self.targets)


@contextmanager
def grad_cam(model: nn.Module, target_layer: str) -> Iterator[GradCam]:
    """Lend a model to Grad-CAM; it is in eval mode inside and as it was afterwards, also after errors.

    Args:
        model: any classifier that maps (N, C, H, W) to logits (N, K) and calls the layer once.
        target_layer: dotted name, such as ``find_target_layer`` gives. Where it is the ``features`` (or
            ``features.norm5``) of a torchvision DenseNet, which applies a functional ReLU to it, the map is
            of the values after that ReLU, as for networks that have the ReLU as a layer.

    Raises:
        ModelError: no such layer.
    """
    layer = _layer(model, target_layer)
    with _asked(model):
        yield GradCam(model, layer, target_layer, relu_follows=_relu_follows(model, target_layer))


@dataclass(frozen=True, slots=True)
class GradCam:
    """Explains batches with a lent model; made by ``grad_cam``. One call at a time, one thread."""

    model: nn.Module
    layer: nn.Module
    name: str
    relu_follows: bool

    def __call__(self, images_nchw: torch.Tensor, targets: Sequence[Targets]) -> CamResult:
        """Run the model once and explain every image once per target set.

        Args:
            images_nchw: what the model takes, shape (N, C, H, W), on its device; only read.
            targets: target sets, each an integer tensor (N,) of classes 0..K-1 or a callable that makes one
                from the logits (N, K), such as ``predicted``.

        Raises:
            ModelError: the layer gives no map, is called more than once or does not lead to the logits; the
                output is not (N, K); a target set has not one class per image or leaves 0..K-1.
        """
        with torch.inference_mode(False), torch.enable_grad():
            images = images_nchw.clone() if images_nchw.is_inference() else images_nchw.detach()
            logits, activation = _record(self, images)
            chosen = tuple(_classes(each, logits.detach()) for each in targets)
            signed = tuple(
                _weighted_sum(logits, activation, classes, self.name, keep=number < len(chosen))
                for number, classes in enumerate(chosen, 1)
            )
        return CamResult(logits.detach(), chosen, signed)


@dataclass(slots=True)
class _Tape:
    """Where recording starts: the activation to differentiate by, and the copy that is passed on."""

    name: str
    activation: torch.Tensor | None = None
    passed_on: torch.Tensor | None = field(default=None, repr=False)

    def start(self, value: torch.Tensor) -> torch.Tensor:
        # The model gets a copy that is not a leaf: an in-place ReLU may follow and must not touch it.
        torch.set_grad_enabled(True)
        self.activation = value.detach().requires_grad_()
        self.passed_on = self.activation.clone()
        return self.passed_on

    def hook(self, _module: nn.Module, _inputs: object, output: object) -> torch.Tensor:
        if self.activation is not None:
            raise ModelError(
                f"target layer: wanted a layer that is called once per image, got {self.name!r}, "
                "which is called again; name the block around it"
            )
        if not (isinstance(output, torch.Tensor) and output.ndim == 4):
            got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise ModelError(
                f"target layer: wanted a convolutional map (N, C, h, w), got {got} from {self.name!r}; "
                "name a convolutional layer"
            )
        return self.start(output)


class _StartAfterRelu(TorchFunctionMode):
    """Moves the start of recording behind the functional ReLU of the hooked layer's output."""

    def __init__(self, tape: _Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.relu and args[0] is self.tape.passed_on:
            return self.tape.start(torch.relu(cast("torch.Tensor", args[0]).detach()))
        return func(*args, **(kwargs or {}))


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _record(cam: GradCam, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the model, recording only what follows the layer: the logits and the activation they depend on."""
    tape = _Tape(cam.name)
    handle = cam.layer.register_forward_hook(tape.hook)
    try:
        # The hook switches gradients on halfway through; leaving no_grad() restores the caller's mode.
        with torch.no_grad(), _StartAfterRelu(tape) if cam.relu_follows else _nothing():
            logits = cam.model(images)
    finally:
        handle.remove()
    if tape.activation is None:
        raise ModelError(
            f"target layer: wanted a layer that the model calls, got {cam.name!r}, which it does not; "
            "name another, or leave it to find_target_layer"
        )
    if not (isinstance(logits, torch.Tensor) and logits.ndim == 2):
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ModelError(f"model: wanted logits (N, K), got {got}; Grad-CAM explains classifiers")
    return logits, tape.activation


def _classes(targets: Targets, logits: torch.Tensor) -> torch.Tensor:
    """Check one target set against the logits; a wrong length would silently explain other images."""
    num_images, num_classes = logits.shape
    classes = targets if isinstance(targets, torch.Tensor) else targets(logits)
    if classes.shape != (num_images,) or classes.is_floating_point() or classes.dtype == torch.bool:
        raise ModelError(
            f"targets: wanted one class per image, an integer tensor of shape ({num_images},), "
            f"got {classes.dtype} {tuple(classes.shape)}; give every image its class"
        )
    if num_images and (int(classes.min()) < 0 or int(classes.max()) >= num_classes):
        raise ModelError(
            f"targets: wanted classes 0..{num_classes - 1}, got {int(classes.min())}.."
            f"{int(classes.max())}; leave out images without a label, and check the class list "
            "of the model"
        )
    return classes.to(device=logits.device, dtype=torch.int64)


def _weighted_sum(
    logits: torch.Tensor, activation: torch.Tensor, classes: torch.Tensor, name: str, *, keep: bool
) -> torch.Tensor:
    """Differentiate the chosen logits by the activation and weigh its channels, in float32: (N, h, w)."""
    chosen = logits.gather(1, classes[:, None]).sum()
    gradient = None
    if chosen.requires_grad:
        (gradient,) = torch.autograd.grad(chosen, activation, retain_graph=keep, allow_unused=True)
    if gradient is None:
        raise ModelError(
            f"target layer: wanted a layer that leads to the logits, got {name!r}, which does not; "
            "name another, or check that the model's head does not detach or run without gradients"
        )
    weights = gradient.float().mean(dim=(2, 3))
    return torch.einsum("nk,nkhw->nhw", weights, activation.detach().float())


@contextmanager
def _asked(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode and give every module its own training flag back at the end."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


def _layer(model: nn.Module, name: str) -> nn.Module:
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if not name or name not in modules:
        raise ModelError(
            f"target layer: wanted a layer of {type(model).__name__}, got {name!r}; "
            f"{nearest(name, modules) or 'see model.named_modules()'}"
        )
    return modules[name]


def _relu_follows(model: nn.Module, name: str) -> bool:
    from torchvision.models import DenseNet

    owner = name.removesuffix(".norm5").rpartition("features")
    if owner[1] != "features" or owner[2]:
        return False
    return isinstance(model.get_submodule(owner[0].rstrip(".")), DenseNet)


def find_target_layer(model: nn.Module, example_nchw: torch.Tensor) -> str:
    """Find the layer Grad-CAM is usually asked for: the last convolutional map before pooling and head.

    That is the last layer to finish before the head whose output is (N, C, h, w) with more than one place,
    pooling to a fixed size, dropout and identities left out; of nested layers with that output the
    outermost. So normalisation and activation after the last convolution are in: ``layer4`` (ResNet),
    ``bn2`` (timm EfficientNet), ``features`` (torchvision MobileNet, ConvNeXt, DenseNet, SqueezeNet and,
    its last max pooling included as pytorch-grad-cam has it, VGG).

    Args:
        model: left as it was.
        example_nchw: an image or batch of the size that will be explained; only its shape matters.

    Raises:
        ModelError: no convolutional map reaches the head, as in a vision transformer; or none is larger
            than 1 x 1.
    """
    shapes = _output_shapes(model, example_nchw)
    maps = [place for place, (_, shape) in enumerate(shapes) if len(shape) == 4 and shape[2] * shape[3] > 1]
    last = maps[-1] if maps else len(shapes)
    tokens = any(len(shape) == 3 for _, shape in shapes[last + 1 :])
    if tokens or getattr(model, "output_fmt", "NCHW") == "NHWC" or not maps:
        raise ModelError(
            f"target layer: wanted a convolutional map before the head, got no convolutional map in "
            f"{type(model).__name__} at {tuple(example_nchw.shape[2:])} pixels; use a convolutional "
            "network, larger images, or name a layer with output (N, C, h, w)"
        )
    return shapes[last][0]


_NOT_MAPS = (
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
    nn.Flatten,
)


class _HeadReachedError(Exception):
    """The head is called: nothing after it is of interest."""


def _output_shapes(model: nn.Module, example: torch.Tensor) -> list[tuple[str, tuple[int, ...]]]:
    """Name layers and the shapes of their outputs in the order in which they finish, up to the head."""
    seen: list[tuple[str, tuple[int, ...]]] = []
    head_name, head = head_module(model)
    names = {module: name for name, module in model.named_modules() if name and name != head_name}

    def note(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and not isinstance(module, _NOT_MAPS):
            seen.append((names[module], tuple(output.shape)))

    def stop(_module: nn.Module, _inputs: object) -> None:
        raise _HeadReachedError

    handles = [module.register_forward_hook(note) for module in names]
    handles.append(head.register_forward_pre_hook(stop))
    try:
        with _asked(model), torch.no_grad():
            model(example)
    except _HeadReachedError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return seen
