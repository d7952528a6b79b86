"""Grad-CAM of batches: Lightwell, Captum, pytorch-grad-cam, and the forward pass alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from lightwell import ModelSpec
from lightwell.models.explain.cam.explainer import class_activation_maps, predicted
from lightwell.models.explain.cam.memory import prepare_memory
from lightwell.models.explain.target_layer import find_target_layer
from lightwell.models.zoo.build import build_model
from lightwell.workers.malloc import keep_freed_memory
from torch import nn

from benchmarks.benchmark import NUM_WORKERS, SIDE, Work

RESNET, VIT, SWIN = "resnet50", "timm:vit_small_patch16_224", "timm:swin_tiny_patch4_window7_224"
Explain = Callable[[torch.Tensor], torch.Tensor]
"""Images (N, C, H, W) to maps (N, h, w) before the ReLU, of the predicted class."""
NUM_COMPARED = 2
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Largest difference from plain autograd, relative to a map's largest value."""


def prepare_process() -> None:
    """Limit torch's threads, and keep freed memory as audits do."""
    torch.set_num_threads(NUM_WORKERS)
    keep_freed_memory()


def network(name: str) -> nn.Module:
    """Return a seeded network in eval mode."""
    torch.manual_seed(0)
    return build_model(ModelSpec(name=name, weights="none")).eval()


def pictures(num: int) -> torch.Tensor:
    """Return smooth seeded noise; the first images are the same for every number."""
    rows = [torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(row)) for row in range(num)]
    return nn.functional.interpolate(torch.cat(rows), size=(SIDE, SIDE), mode="bilinear")


def images_per_second(work: Work, run: Callable[[torch.Tensor], object]) -> float:
    """Call a function with full batches, after one to warm up."""
    images = pictures(work.batch_size)
    run(images)
    num_batches, started = 0, time.perf_counter()
    while num_batches < 2 or time.perf_counter() - started < work.seconds:
        run(images)
        num_batches += 1
    return num_batches * work.batch_size / (time.perf_counter() - started)


def explained_per_second(
    work: Work, name: str, explain: Explain, precision: torch.dtype = torch.float32
) -> float:
    """Measure maps, once they are those of plain autograd."""
    images = pictures(NUM_COMPARED)
    wanted = plain_maps(network(name), images)
    found = explain(images)
    difference = ((found - wanted).abs() / wanted.abs().amax((1, 2), keepdim=True)).max()
    assert difference <= TOLERANCE[precision], f"maps differ by {difference:.1e} of their largest value"
    return images_per_second(work, explain)


def plain_maps(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Grad-CAM by autograd through the whole network; channels last in the layers of Swin and ViT."""
    kept: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        kept.append(output)
        return output.clone()

    handle = model.get_submodule(find_target_layer(model, images)).register_forward_hook(keep)
    model(images.clone().requires_grad_()).amax(1).sum().backward(inputs=kept)
    handle.remove()
    activation, gradient = (as_nchw(each) for each in (kept[0].detach(), kept[0].grad))
    return torch.einsum("nk,nkhw->nhw", gradient.mean((2, 3)), activation)


def as_nchw(values: torch.Tensor | None) -> torch.Tensor:
    """View the output of ResNet, Swin or ViT as (N, C, h, w)."""
    assert values is not None
    if values.ndim == 3:
        return values[:, 1:].transpose(1, 2).unflatten(2, (14, 14))
    return values if values.shape[2] == values.shape[3] else values.permute(0, 3, 1, 2)


@contextmanager
def our_maps(name: str, precision: torch.dtype | None = None) -> Iterator[Explain]:
    """Open an explainer in the memory layout that audits choose."""
    model = network(name)
    layout = prepare_memory(model)
    with class_activation_maps(model, find_target_layer(model, pictures(1))) as cam:

        def explain(images: torch.Tensor) -> torch.Tensor:
            with mixed_precision(precision):
                return cam(images.contiguous(memory_format=layout), [predicted]).pre_relu[0]

        yield explain


def mixed_precision(precision: torch.dtype | None) -> torch.autocast | nullcontext[None]:
    """Return a context in which layers compute in a precision; None leaves it."""
    return nullcontext() if precision is None else torch.autocast("cpu", precision)


def ours_with(work: Work, name: str, precision: torch.dtype | None = None) -> float:
    """Images a second explained by Lightwell."""
    prepare_process()
    with our_maps(name, precision) as explain:
        return explained_per_second(work, name, explain, precision or torch.float32)


def forward_with(work: Work, name: str, precision: torch.dtype | None = None) -> float:
    """Images a second of the forward pass alone, in the faster of both memory layouts."""
    prepare_process()

    def time_of(layout: torch.memory_format) -> tuple[float, Callable[[torch.Tensor], object]]:
        model = network(name).to(memory_format=layout)  # type: ignore[call-overload]

        def run(images: torch.Tensor) -> object:
            with torch.inference_mode(), mixed_precision(precision):
                return model(images.contiguous(memory_format=layout))

        run(images := pictures(work.batch_size))
        started = time.perf_counter()
        run(images)
        return time.perf_counter() - started, run

    timed = [time_of(layout) for layout in (torch.contiguous_format, torch.channels_last)]
    return images_per_second(work, min(timed, key=lambda one: one[0])[1])


def ours(work: Work) -> float:
    """ResNet-50 in float32."""
    return ours_with(work, RESNET)


def forward(work: Work) -> float:
    """ResNet-50 in float32."""
    return forward_with(work, RESNET)


def ours_bf16(work: Work) -> float:
    """ResNet-50 in bfloat16."""
    return ours_with(work, RESNET, torch.bfloat16)


def forward_bf16(work: Work) -> float:
    """ResNet-50 in bfloat16."""
    return forward_with(work, RESNET, torch.bfloat16)


def ours_vit(work: Work) -> float:
    """ViT-S/16."""
    return ours_with(work, VIT)


def forward_vit(work: Work) -> float:
    """ViT-S/16."""
    return forward_with(work, VIT)


def ours_swin(work: Work) -> float:
    """Swin-T."""
    return ours_with(work, SWIN)


def forward_swin(work: Work) -> float:
    """Swin-T."""
    return forward_with(work, SWIN)


def captum(work: Work) -> float:
    """LayerGradCam, which is given the predicted classes: otherwise it needs another forward pass."""
    from captum.attr import LayerGradCam

    prepare_process()
    model = network(RESNET)
    with torch.no_grad():
        classes = model(pictures(work.batch_size)).argmax(1)
    attribution, layout = LayerGradCam(model, model.get_submodule("layer4")), prepare_memory(model)

    def explain(images: torch.Tensor) -> torch.Tensor:
        inputs = images.contiguous(memory_format=layout)
        return attribution.attribute(inputs, classes[: len(images)])[:, 0].detach()

    return explained_per_second(work, RESNET, explain)


def pytorch_grad_cam(work: Work) -> float:
    """GradCAM, whose own maps are rectified, scaled and enlarged; those at the layer's size are compared."""
    from pytorch_grad_cam import GradCAM

    class KeepsMaps(GradCAM):
        def get_cam_image(self, *values: object) -> object:
            self.small = super().get_cam_image(*values)
            return self.small

    prepare_process()
    model = network(RESNET)
    layout = prepare_memory(model)
    cam = KeepsMaps(model=model, target_layers=[model.get_submodule("layer4")])

    def explain(images: torch.Tensor) -> torch.Tensor:
        cam(images.contiguous(memory_format=layout), targets=None)  # of the predicted class
        return torch.from_numpy(cam.small)

    return explained_per_second(work, RESNET, explain)
