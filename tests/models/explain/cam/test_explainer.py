"""Linear heads, wrapped models and segmentation: the same maps, and the model as it was."""

from __future__ import annotations

import pytest
import torch
from cam_networks import Clipped, Flattened, Pooled, Segments, images, tiny
from lightwell.models.explain.cam.explainer import Cam, class_activation_maps, predicted
from lightwell.models.explain.cam.linear_head import LinearHead
from lightwell.models.explain.target_layer import find_target_layer
from lightwell.pipeline.errors import ModelError
from torch import nn


def head_of(cam: Cam) -> LinearHead | None:
    ((_, head),) = cam.layers.values()
    return head


def test_pooling_and_a_linear_layer_need_no_gradients() -> None:
    model, recorded = tiny(Pooled), []
    with class_activation_maps(model, "last", "hires-cam") as cam:
        cam(images(1), [predicted])
        assert head_of(cam) is not None
        handle = model.fc.register_forward_hook(lambda *seen: recorded.append(seen[2].requires_grad))
        cam(images(), [predicted])
        handle.remove()
    assert recorded == [False]
    for kind in (Flattened, Clipped):
        with class_activation_maps(tiny(kind), "last") as cam:
            cam(images(1), [predicted])
            assert (head_of(cam) is None) == (kind is Flattened)


def test_a_batch_for_which_the_closed_form_does_not_hold_is_differentiated() -> None:
    model = tiny(Clipped)
    bright = images() * torch.tensor([1.0, 1.0, 300.0])[:, None, None, None]
    with class_activation_maps(model, "last") as cam:
        found = cam(bright, [predicted])
        assert head_of(cam) is not None, "five images of usual brightness do not show the limit"
    activations = model.last(model.first(bright)).detach().requires_grad_()
    scores = model.fc(activations.clamp_max(20).mean((2, 3)))
    assert torch.allclose(scores, found.logits)
    (gradients,) = torch.autograd.grad(scores.amax(1).sum(), activations)
    wanted = torch.einsum("nk,nkhw->nhw", gradients.mean((2, 3)), activations.detach())
    assert torch.allclose(found.pre_relu[0], wanted, rtol=1e-4)


def test_weights_that_change_between_batches_are_used() -> None:
    model = tiny(Pooled)
    with class_activation_maps(model, "last") as cam:
        before = cam(images(), [torch.tensor([0, 1, 2])]).pre_relu[0]
        with torch.no_grad():
            model.fc.weight.neg_()
        assert torch.allclose(cam(images(), [torch.tensor([0, 1, 2])]).pre_relu[0], -before)


@pytest.mark.parametrize("kind", [Pooled, Flattened])
@pytest.mark.parametrize("wrapper", ["parallel", "compiled", "in place"])
def test_wrapped_models_have_the_maps_of_the_network_inside(kind: type[nn.Module], wrapper: str) -> None:
    model = tiny(kind)
    with class_activation_maps(model, "last") as cam:
        wanted = cam(images(), [predicted]).pre_relu[0]
    wrapped: nn.Module = model
    if wrapper == "parallel":
        wrapped = nn.DataParallel(model)
    elif wrapper == "compiled":
        wrapped = torch.compile(model, backend="eager")  # type: ignore[assignment]
    else:
        model.compile(backend="eager")
        model(images())
    compiled = model._compiled_call_impl
    wrapped.train()
    with class_activation_maps(wrapped, find_target_layer(wrapped, images())) as cam:
        assert torch.equal(cam(images(), [predicted]).pre_relu[0], wanted)
    assert all(module.training for module in wrapped.modules())
    assert model._compiled_call_impl is compiled
    name = {"parallel": "module.last", "compiled": "_orig_mod.last", "in place": "last"}[wrapper]
    with class_activation_maps(wrapped, name) as cam:
        assert torch.equal(cam(images(), [predicted]).pre_relu[0], wanted)


def test_channels_last_models_keep_their_format_and_have_the_same_maps() -> None:
    model = tiny(Pooled)
    with class_activation_maps(model, "last") as cam:
        wanted = cam(images(), [predicted]).pre_relu[0]
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pictures = images().contiguous(memory_format=torch.channels_last)
    with class_activation_maps(model, "last") as cam:
        assert torch.allclose(cam(pictures, [predicted]).pre_relu[0], wanted, atol=1e-6)
    assert model.last[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_scripted_model_is_refused() -> None:
    with pytest.warns(FutureWarning, match="deprecated"):
        scripted = torch.jit.trace(tiny(Pooled), images(1))
    with pytest.raises(ModelError, match="got a TorchScript module"), class_activation_maps(scripted, "last"):
        pass


def test_a_map_of_a_segmentation_model_explains_the_logits_of_a_region() -> None:
    model, regions = tiny(Segments), torch.zeros(3, 16, 16, dtype=torch.bool)
    regions[:, 2:7, 3:9] = True
    with class_activation_maps(model, "body") as cam:
        found = cam(images(), [torch.tensor([0, 1, 2])], regions)
        whole = cam(images(), [torch.tensor([0, 1, 2])])
        with pytest.raises(ModelError, match=r"expected a mask of the logits, \(3, 16, 16\)"):
            cam(images(), [predicted], regions[:, :4])
    activations = model.body(images()).detach().requires_grad_()
    logits = nn.functional.interpolate(model.out(activations), size=(16, 16), mode="bilinear")
    for row, (result, mask) in enumerate(
        ((found, regions[0]), (whole, torch.ones(16, 16, dtype=torch.bool)))
    ):
        for image in range(3):
            score = logits[image, image][mask].sum()
            (gradients,) = torch.autograd.grad(score, activations, retain_graph=True)
            wanted = torch.einsum("k,khw->hw", gradients[image].mean((1, 2)), activations[image].detach())
            assert torch.allclose(result.pre_relu[0][image], wanted, atol=1e-5 * float(wanted.abs().max())), (
                row
            )
    with (
        class_activation_maps(tiny(Pooled), "last") as cam,
        pytest.raises(ModelError, match="leave them out"),
    ):
        cam(images(), [predicted], regions)


def test_one_logit_has_maps_for_and_against() -> None:
    model = tiny(Pooled)
    model.fc = nn.Linear(6, 1)
    with class_activation_maps(model, "last") as cam:
        result = cam(images(), [predicted])
    assert result.targets[0].tolist() == [0, 0, 0]
    assert (result.pre_relu[0] != result.maps[0]).any()


def test_logits_of_a_linear_head_keep_their_digits_in_bfloat16() -> None:
    model = tiny(Pooled)
    with torch.no_grad():
        model.fc.bias.copy_(100 + 0.01 * torch.arange(len(model.fc.bias)))
    exact = model(images()).detach()
    with class_activation_maps(model, "last") as cam, torch.autocast("cpu", torch.bfloat16):
        rounded = model(images())
        found = cam(images(), [predicted])
    assert head_of(cam) is not None
    assert len(rounded[0].unique()) < len(exact[0]) == len(found.logits[0].unique())
    assert found.logits.dtype == torch.float32
    assert torch.equal(found.targets[0], exact.argmax(1))
