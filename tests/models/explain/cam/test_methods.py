"""Every method against a slow replica: autograd through the whole network, one image and one channel at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from cam_networks import Flattened, Pooled, Signed, images, tiny
from lightwell.models.explain.cam.explainer import class_activation_maps
from lightwell.models.explain.cam.registry import METHODS, check_method, find_method
from lightwell.pipeline.config.imports import AllowedModules
from lightwell.pipeline.errors import ModelError, PlanError
from torch import nn

CLASSES = [3, 0, 2]


def replica(model: nn.Module, image: torch.Tensor, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Return activations and gradients (C, h, w) of the layer ``last`` for one image, in float64."""
    kept: dict[str, torch.Tensor] = {}

    def keep(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        kept["output"] = output

    handle = model.get_submodule("last").register_forward_hook(keep)
    model(image[None])[0, wanted].backward()
    handle.remove()
    model.zero_grad()
    gradient = kept["output"].grad
    assert gradient is not None
    return kept["output"].detach()[0].double().numpy(), gradient[0].double().numpy()


def plain_grad_cam(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    return sum(g[k].mean() * a[k] for k in range(len(a)))


def plain_hires_cam(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    return sum(g[k] * a[k] for k in range(len(a)))


def plain_grad_cam_plus_plus(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    total = np.zeros_like(a[0])
    for channel, slope in zip(a, g, strict=True):
        weight = 0.0
        for value in slope.flatten():
            if value > 0:
                weight += value * value**2 / (2 * value**2 + channel.sum() * value**3)
        total += weight * channel
    return total


def plain_xgrad_cam(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    return sum((a[k] * g[k]).sum() / a[k].sum() * a[k] for k in range(len(a)) if a[k].sum())


def plain_layer_cam(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    return sum(np.maximum(g[k], 0) * a[k] for k in range(len(a)))


def plain_eigen_cam(a: np.ndarray, _g: np.ndarray) -> np.ndarray:
    cells = a.reshape(len(a), -1).T
    found = (cells @ np.linalg.svd(cells)[2][0]).reshape(a.shape[1:])
    return found if found.sum() > 0 else -found


PLAIN: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "grad-cam": plain_grad_cam,
    "hires-cam": plain_hires_cam,
    "grad-cam++": plain_grad_cam_plus_plus,
    "xgrad-cam": plain_xgrad_cam,
    "layer-cam": plain_layer_cam,
    "eigen-cam": plain_eigen_cam,
}


def assert_same_maps(found: torch.Tensor, wanted: np.ndarray, limit: float = 1e-5) -> None:
    scale = np.abs(wanted).max(axis=(1, 2), keepdims=True)
    assert (scale > 0).all()
    assert (np.abs(found.numpy() - wanted) / scale).max() < limit


@pytest.mark.parametrize("kind", [Pooled, Flattened, Signed])
@pytest.mark.parametrize("method", PLAIN)
def test_a_method_equals_its_replica(method: str, kind: type[nn.Module]) -> None:
    model, pictures = tiny(kind), images()
    with class_activation_maps(model, "last", method) as cam:
        result = cam(pictures, [torch.tensor(CLASSES)])
    wanted = np.stack(
        [PLAIN[method](*replica(model, image, one)) for image, one in zip(pictures, CLASSES, strict=True)]
    )
    assert_same_maps(result.pre_relu[0], wanted)
    assert torch.equal(result.maps[0], result.pre_relu[0].clamp_min(0))


@pytest.mark.parametrize("kind", [Pooled, Flattened])
def test_score_cam_equals_its_replica(kind: type[nn.Module]) -> None:
    model, pictures = tiny(kind), images()
    with class_activation_maps(model, "last", "score-cam") as cam:
        result = cam(pictures, [torch.tensor(CLASSES)])
    wanted = []
    for image, one in zip(pictures, CLASSES, strict=True):
        activations, _ = replica(model, image, one)
        scores = []
        for channel in activations:
            mask = nn.functional.interpolate(
                torch.from_numpy(channel)[None, None].float(), size=(16, 16), mode="bilinear"
            )[0]
            mask = (mask - mask.min()) / (mask.max() - mask.min() or 1)
            with torch.no_grad():
                scores.append(float(model((image * mask)[None])[0, one]))
        weights = np.exp(scores) / np.exp(scores).sum()
        wanted.append(sum(w * a for w, a in zip(weights, activations, strict=True)))
    assert_same_maps(result.pre_relu[0], np.stack(wanted))


def test_cam_is_grad_cam_times_the_cells_and_needs_a_linear_head() -> None:
    chosen = [torch.tensor(CLASSES)]
    with class_activation_maps(tiny(Pooled), "last", "cam") as cam:
        found = cam(images(), chosen).pre_relu[0]
    with class_activation_maps(tiny(Pooled), "last") as cam:
        assert torch.allclose(found / 64, cam(images(), chosen).pre_relu[0])
    with (
        class_activation_maps(tiny(Flattened), "last", "cam") as cam,
        pytest.raises(ModelError, match="use grad-cam, which works for every head"),
    ):
        cam(images(), chosen)


@pytest.mark.parametrize("kind", [Pooled, Flattened, Signed])
def test_grad_cam_equals_captum(kind: type[nn.Module]) -> None:
    captum = pytest.importorskip("captum.attr")
    model, chosen = tiny(kind), torch.tensor(CLASSES)
    with class_activation_maps(model, "last") as cam:
        found = cam(images(), [chosen]).pre_relu[0]
    wanted = captum.LayerGradCam(model, model.last).attribute(images(), chosen, attr_dim_summation=True)
    assert_same_maps(found, wanted[:, 0].detach().numpy())


def test_maps_of_all_classes_come_from_one_forward_pass() -> None:
    model, calls = tiny(Flattened), []
    with class_activation_maps(model, "last") as cam:
        cam(images(1), [])  # determines the layout
        handle = model.first.register_forward_hook(lambda *_: calls.append(1))
        everything = cam(images(), [torch.full((3,), number) for number in range(4)]).pre_relu
        handle.remove()
        assert len(calls) == 1
        for number in range(4):
            alone = cam(images(), [torch.full((3,), number)]).pre_relu[0]
            assert torch.equal(everything[number], alone)


def test_a_method_of_another_package_is_named_by_its_import_path() -> None:
    with class_activation_maps(tiny(Pooled), "last", "cam_networks:mean_activation") as cam:
        result = cam(images(), [torch.tensor(CLASSES)])
    assert torch.equal(result.pre_relu[0], result.activations_nchw.mean(1))


def test_unknown_and_disallowed_methods_are_refused() -> None:
    with pytest.raises(PlanError, match=r"method: expected one of cam, .*did you mean 'layer-cam'"):
        find_method("layer_cam")
    with pytest.raises(PlanError, match="--allow-import plugin"):
        check_method("plugin:my_cam", AllowedModules())
    check_method("plugin:my_cam", AllowedModules(("plugin",)))
    with pytest.raises(PlanError, match="no module 'no_such_module'"):
        find_method("no_such_module:f")
    assert set(METHODS) == {*PLAIN, "cam", "score-cam"}
