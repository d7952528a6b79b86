"""Target layer, token grid and maps of tiny transformers: class token, registers, average and attention pooling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cam_networks import images
from lightwell.models.explain.cam.explainer import class_activation_maps, predicted
from lightwell.models.explain.target_layer import find_target_layer
from timm.models.convnext import ConvNeXt
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

TINY = {"img_size": 32, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}
AVERAGE = {"class_token": False, "global_pool": "avg"}


def replica(model: nn.Module, layer: str, pictures: torch.Tensor, prefix: int, side: int) -> torch.Tensor:
    """Grad-CAM by autograd through the whole network, token by token."""
    kept: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    handle = model.get_submodule(layer).register_forward_hook(keep)
    model(pictures).amax(1).sum().backward()
    handle.remove()
    gradient = kept[0].grad
    assert gradient is not None
    maps = torch.zeros(len(pictures), side, side)
    for image in range(len(pictures)):
        tokens, slopes = (each.detach()[image, prefix:] for each in (kept[0], gradient))
        weights = slopes.mean(0)
        for number, token in enumerate(tokens):
            maps[image, number // side, number % side] = (weights * token).sum()
    return maps


@pytest.mark.parametrize(
    ("options", "layer", "prefix"),
    [
        ({}, "blocks.1.norm1", 1),
        ({"reg_tokens": 4}, "blocks.1.norm1", 5),  # DINO with registers
        ({"reg_tokens": 4, "no_embed_class": True}, "blocks.1.norm1", 5),
        ({"pre_norm": True}, "blocks.1.norm1", 1),  # CLIP
        (AVERAGE, "blocks", 0),
        ({"global_pool": "avg"}, "blocks", 1),  # the class token is not pooled
        ({"class_token": False, "global_pool": "map"}, "norm", 0),  # SigLIP
    ],
    ids=["class token", "registers", "registers after", "clip", "average", "average of patches", "attention"],
)
def test_a_vision_transformer_is_explained_at_its_patch_tokens(
    options: dict[str, Any], layer: str, prefix: int
) -> None:
    torch.manual_seed(0)
    model, pictures = VisionTransformer(**TINY, **options).eval(), images(2, side=32)
    assert find_target_layer(model, pictures) == layer
    with class_activation_maps(model, layer) as cam:
        result = cam(pictures, [predicted])
    wanted = replica(model, layer, pictures, prefix, side=8)
    assert wanted.abs().max() > 0
    assert torch.allclose(result.pre_relu[0], wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_swin_and_convnext_are_explained_at_their_last_map() -> None:
    torch.manual_seed(0)
    swin = SwinTransformer(
        img_size=64, window_size=4, embed_dim=12, depths=(2, 2), num_heads=(2, 4), num_classes=5
    ).eval()
    convnext = ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 12, 16, 24), num_classes=5).eval()
    for model, layer, shape in ((swin, "norm", (2, 8, 8)), (convnext, "stages", (2, 2, 2))):
        assert find_target_layer(model, images(2, side=64)) == layer
        with class_activation_maps(model, layer, "hires-cam") as cam:
            result = cam(images(2, side=64), [predicted])
        assert result.pre_relu[0].shape == shape
        assert (result.pre_relu[0] != 0).any()
