"""A description states what the network is: parameters, blocks, head, features and input."""

from __future__ import annotations

import json
import re

import pytest
import torch
from commands import lightwell
from lightwell.models.zoo.build import ModelSpec
from lightwell.models.zoo.catalog import CLASSIC, find_networks
from lightwell.models.zoo.describe import build_without_values, describe
from lightwell.models.zoo.freezing import blocks, freeze_before
from lightwell.models.zoo.heads import head_module
from lightwell.pipeline.errors import ModelError

PUBLISHED = {
    "alexnet": 61_100_840,
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg13": 133_047_848,
    "vgg13_bn": 133_053_736,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "vgg19": 143_667_240,
    "vgg19_bn": 143_678_248,
    "googlenet": 6_624_904,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}
NETWORKS = (
    "alexnet",
    "vgg16",
    "googlenet",
    "inception_v3",
    "resnet18",
    "densenet121",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_b_16",
    "swin_t",
    "tf_efficientnet_lite0",
    "convnext_atto",
    "timm:resnet18",
    "resnet50_clip",
    "swin_tiny_patch4_window7_224",
    "deit_tiny_distilled_patch16_224",
    "eva02_tiny_patch14_224",
    "vit_base_patch16_clip_224",
    "vit_small_patch14_dinov2",
    "vit_small_patch16_dinov3",
    "vit_tiny_r_s16_p8_224",
)
NUM_CLASSES = 7


def test_the_number_of_parameters_is_the_published_one() -> None:
    networks = {name: build_without_values(ModelSpec(name=name)) for name in CLASSIC}
    assert {
        name: sum(each.numel() for each in network.parameters()) for name, network in networks.items()
    } == PUBLISHED
    with_heads = describe(ModelSpec(name="googlenet", auxiliary_heads=True))
    assert (with_heads.num_parameters, with_heads.auxiliary_heads) == (13_004_888, ("aux1", "aux2"))
    with_head = describe(ModelSpec(name="inception_v3", auxiliary_heads=True))
    assert (with_head.num_parameters, with_head.auxiliary_heads) == (27_161_264, ("AuxLogits",))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_description_is_true(name: str) -> None:
    spec = ModelSpec(name=name, num_classes=NUM_CLASSES)
    info, model = describe(spec), build_without_values(spec)
    widths: list[int] = []
    head = head_module(model)[1]
    handle = head.register_forward_pre_hook(
        lambda _, inputs: widths.append(inputs[0].shape[1 if inputs[0].ndim == 4 else -1])
    )
    assert info.input is not None
    with torch.device("meta"), torch.no_grad():
        scores = model(torch.zeros(2, info.in_channels, *info.input.size))
    handle.remove()
    assert (tuple(scores.shape), widths[0]) == ((2, NUM_CLASSES), info.num_features)

    sizes = {key: parameter.numel() for key, parameter in model.named_parameters()}
    for part in info.blocks:
        inside = [key for key in sizes if key.startswith(f"{part.name}.")]
        assert sum(sizes.pop(key) for key in inside) == part.num_parameters > 0
    assert {part.name: part.num_parameters for part in info.outside} == sizes
    assert info.num_parameters == sum(part.num_parameters for part in (*info.blocks, *info.outside))

    assert info.suggested_block in {part.name for part in info.blocks} - set(info.heads)
    assert info.heads[0] in [part.name for part in info.blocks[-len(info.heads) :]]
    assert info.target_layer is not None
    assert info.grid is not None
    assert min(info.grid) > 1


def test_a_vision_transformer_is_built_for_the_size_of_its_weights() -> None:
    info = describe(ModelSpec(name="vit_h_14"))
    assert info.input is not None
    assert (info.input.size, info.grid) == ((518, 518), (37, 37))


@pytest.mark.parametrize("name", NETWORKS)
def test_freezing_works_from_each_block(name: str) -> None:
    model = build_without_values(ModelSpec(name=name, num_classes=NUM_CLASSES))
    names = blocks(model)
    for number, block in enumerate(names):
        freeze_before(model, block)
        for part in names:
            flags = {parameter.requires_grad for parameter in model.get_submodule(part).parameters()}
            assert flags == {part in names[number:]}, (block, part)


@pytest.mark.parametrize(
    ("name", "num_classes"),
    [("vit_small_patch14_dinov2", 0), ("vit_base_patch16_clip_224.openai", 512), ("vgg16", 1000)],
)
def test_an_image_encoder_is_described_without_a_head(name: str, num_classes: int) -> None:
    info = describe(ModelSpec(name=name))
    assert info.num_classes == num_classes
    assert (info.blocks[-1].num_parameters == 0) == (num_classes == 0)


def test_the_input_of_a_gray_network_has_the_average_constants() -> None:
    info = describe(ModelSpec(name="resnet18", in_channels=1))
    assert info.in_channels == 1
    assert info.input is not None
    assert (info.input.mean, info.input.std) == ((0.449,), (0.226,))
    assert info.num_parameters == PUBLISHED["resnet18"] - 2 * 64 * 7 * 7


def test_a_pattern_matches_names_families_and_hubs() -> None:
    assert [each.name for each in find_networks()][: len(CLASSIC)] == list(CLASSIC)
    assert {each.name for each in find_networks("googlenet")} == {"googlenet"}
    assert {each.hub for each in find_networks("*:resnet18")} == {"torchvision", "timm"}
    assert "timm:resnet18" in {each.name for each in find_networks("timm:resnet*")}
    assert len(find_networks("vision_transformer")) > 50


def test_the_command_lists_and_describes_networks() -> None:
    described = lightwell("models", "vgg16")
    assert described.returncode == 0, described.stderr
    for line in ("138,357,544", "classifier.6: 4,096 features -> 1,000 classes", "features, 7 x 7 cells", "IMAGENET1K_V1 (default",
                 "  features.28", "model: {name: vgg16, weights: default}", "fine_tune_from: classifier.3"):  # fmt: skip
        assert line in described.stdout
    listed = json.loads(lightwell("models", "--filter", "vgg16*", "--json").stdout)
    assert [each["name"] for each in listed][:2] == ["vgg16", "vgg16_bn"]
    assert "got 'vgg61'; did you mean" in lightwell("models", "vgg61").stderr
    assert "got 'zzz*', which matches none" in lightwell("models", "--filter", "zzz*").stderr
    assert re.search(r"timm:vgg11 +timm +vgg +132\.9 M", lightwell("models", "--filter", "*vgg11").stdout)
    families = lightwell("models").stdout
    assert re.search(r"torchvision \(\d+\): alexnet 1, convnext 4", families)
    assert re.search(r"timm \([\d,]+\): beit \d+", families)


def test_options_that_a_network_does_not_have_are_refused() -> None:
    with pytest.raises(ModelError, match="auxiliary_heads: expected torchvision's googlenet or inception_v3"):
        describe(ModelSpec(name="resnet18", auxiliary_heads=True))
    with pytest.raises(ModelError, match="in_channels: expected a network that begins with a convolution"):
        describe(ModelSpec(name="naflexvit_base_patch16_gap", in_channels=1))


@pytest.mark.parametrize("name", ["qwen3_vit_88m_enc", "mobilenetv5_300m_enc"])
def test_an_encoder_for_a_language_model_is_refused_as_a_classifier(name: str) -> None:
    with pytest.raises(
        ModelError, match=r"expected a classifier, got .*; choose the network of the same name"
    ):
        describe(ModelSpec(name=name))
