"""Layouts of layers: determined by moving a patch of the image, not by the shape of the output."""

from __future__ import annotations

import pytest
import torch
from lightwell.models.explain.activations import layer_layout
from lightwell.models.explain.grad_cam import grad_cam, predicted
from lightwell.models.explain.target_layer import choose_target_layer
from lightwell.models.explain.token_layout import find_layout
from lightwell.models.zoo.build import ModelSpec, build_model
from lightwell.models.zoo.describe import describe
from lightwell.models.zoo.map_layout import possible_layouts, token_grid
from lightwell.pipeline.errors import ModelError
from torch import nn


def image(size: int = 224) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def untrained(name: str) -> nn.Module:
    return build_model(ModelSpec(name=name, weights="none"))


class ChannelsLast(nn.Module):
    """A convolution whose output is (N, h, w, C), with as many channels as rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        self.last = nn.Identity()
        self.fc = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned = self.last(self.conv(x).permute(0, 2, 3, 1))
        return self.fc(turned.mean((1, 2)))


def test_the_layout_of_a_cube_is_determined_by_its_response() -> None:
    model = ChannelsLast().eval()
    layout = layer_layout(model, "last", image(32)[:1])
    assert layout is not None
    assert (layout.kind, layout.height, layout.width) == ("NHWC", 8, 8)
    first = layer_layout(model, "conv", image(32)[:1])
    assert first is not None
    assert first.kind == "NCHW"


def test_channels_first_and_last_give_the_same_map() -> None:
    model = ChannelsLast().eval()
    maps = []
    for layer in ("conv", "last"):
        with grad_cam(model, layer) as cam:
            maps.append(cam(image(32), [predicted]).pre_relu[0])
    assert torch.allclose(maps[0], maps[1], atol=1e-6)


def test_noise_has_no_layout() -> None:
    outputs = torch.randn(5, 16, 7, 7, generator=torch.Generator().manual_seed(0))
    assert find_layout(outputs, (224, 224)) is None


@pytest.mark.parametrize(
    ("tokens", "size", "grid"),
    [(196, (224, 224), (14, 14)), (98, (224, 448), (7, 14)), (197, (224, 224), None), (3, (32, 32), None)],
)
def test_token_grids_have_the_aspect_ratio_of_the_image(
    tokens: int, size: tuple[int, int], grid: tuple[int, int] | None
) -> None:
    assert token_grid(tokens, size) == grid


def test_class_and_register_tokens_are_excluded() -> None:
    for prefix in (0, 1, 2, 5):
        (found,) = possible_layouts((1, prefix + 196, 192), (224, 224), None)
        assert (found.height, found.width, found.num_prefix) == (14, 14, prefix)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("timm:vit_tiny_patch16_224", (14, 14)),
        ("timm:pvt_v2_b0", (7, 7)),
        *(
            pytest.param(name, cells, marks=pytest.mark.slow)
            for name, cells in (
                ("swin_t", (7, 7)),
                ("timm:nest_tiny", (14, 14)),
                ("timm:swin_tiny_patch4_window7_224", (7, 7)),
                ("timm:deit_tiny_distilled_patch16_224", (14, 14)),
                ("timm:cait_xxs24_224", (14, 14)),
                ("timm:xcit_nano_12_p16_224", (14, 14)),
                ("timm:mixer_s32_224", (7, 7)),
                ("timm:poolformer_s12", (7, 7)),
                ("timm:resnet50_clip", (7, 7)),
                ("timm:visformer_tiny", (7, 7)),
                ("timm:edgenext_xx_small", (7, 7)),
            )
        ),
    ],
)
def test_networks_have_a_target_layer_with_the_cells_of_the_image(name: str, cells: tuple[int, int]) -> None:
    model = untrained(name)
    layer = choose_target_layer(model, image())
    described = describe(ModelSpec(name=name))
    assert described.target_layer == layer.name
    assert described.input is not None
    assert described.grid == cells or described.input.size != (224, 224)
    with grad_cam(model, layer.name) as cam:
        assert cam(image(), [predicted]).maps[0].shape[1:] == cells


def test_a_layer_after_which_only_the_class_token_is_used_is_refused() -> None:
    with (
        grad_cam(untrained("timm:vit_tiny_patch16_224"), "blocks.11") as cam,
        pytest.raises(ModelError, match="only the class token does"),
    ):
        cam(image(), [predicted])


def test_a_vision_transformer_at_another_size_is_refused_with_its_size() -> None:
    with pytest.raises(ModelError, match=r"expected images of 224 x 224 pixels.*got 64 x 64"):
        choose_target_layer(untrained("timm:vit_tiny_patch16_224"), image(64))


def test_a_layer_skipped_for_having_one_cell_is_noted() -> None:
    layer = choose_target_layer(untrained("resnet18"), image(32))
    assert layer.name == "layer3"
    assert "layer4 has one cell at 32 x 32 pixels" in layer.note
    assert choose_target_layer(untrained("resnet18"), image(64)).note == ""
