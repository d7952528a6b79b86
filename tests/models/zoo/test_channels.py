"""Networks for gray images and other numbers of channels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightwell.models.zoo.build import ModelSpec, build_model, weights_report
from lightwell.models.zoo.channels import num_input_channels, set_input_channels
from lightwell.models.zoo.plan_checks import check_accepts, data_warnings
from lightwell.pipeline.errors import ModelError
from lightwell.pipeline.plan.plan import Plan
from torch import nn


@pytest.mark.parametrize(
    ("name", "size"),
    [("squeezenet1_1", 64), ("timm:test_resnet", 64), ("timm:test_vit", 160), ("mobilenetv3_small_050", 64)],
)
def test_a_gray_image_has_the_output_of_the_image_repeated_to_three_channels(
    tmp_path: Path, name: str, size: int
) -> None:
    rgb = build_model(ModelSpec(name=name, weights="none"), seed=3)
    torch.save(rgb.state_dict(), tmp_path / "rgb.pth")
    gray = build_model(ModelSpec(name=name, weights=str(tmp_path / "rgb.pth"), in_channels=1))
    assert num_input_channels(gray) == 1
    assert "3 input channels summed to one" in weights_report(gray).line()
    x = torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(gray(x), rgb(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_a_gray_googlenet_reads_minus_one_to_one_as_its_input_is_not_renormalised(tmp_path: Path) -> None:
    rgb = build_model(ModelSpec(name="googlenet", weights="none", transform_input=True), seed=3)
    torch.save(rgb.state_dict(), tmp_path / "rgb.pth")
    spec = ModelSpec(name="googlenet", weights=str(tmp_path / "rgb.pth"), in_channels=1)
    gray = build_model(spec)
    x = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    with torch.no_grad():
        torch.testing.assert_close(gray((x - 0.5) / 0.5), rgb((x - mean) / std), rtol=1e-4, atol=1e-4)
    with pytest.raises(ModelError, match="transform_input: expected images of 3 channels"):
        build_model(spec.model_copy(update={"transform_input": True}))


@pytest.mark.parametrize("num_channels", [2, 4, 5])
def test_other_numbers_of_channels_repeat_the_weights(num_channels: int) -> None:
    rgb = build_model(ModelSpec(name="timm:test_resnet", weights="none"), seed=3)
    wide = build_model(ModelSpec(name="timm:test_resnet", weights="none", in_channels=num_channels), seed=3)
    first, adapted = rgb.conv1[0].weight, wide.conv1[0].weight
    for channel in range(num_channels):
        assert torch.equal(adapted[:, channel], first[:, channel % 3] * (3 / num_channels))


def test_a_network_that_reads_no_rgb_is_refused() -> None:
    for network, got in (
        (nn.Sequential(nn.Linear(2, 2)), "none"),
        (nn.Sequential(nn.Conv2d(4, 2, 1)), "0 of 4"),
    ):
        with pytest.raises(ModelError, match=f"in_channels: expected a network .* with {got}"):
            set_input_channels(network, 1)


def plan(*steps: object) -> Plan:
    resize = {"Resize": {"height": 64, "width": 64}}
    return Plan.model_validate({"index": "i.parquet", "preprocess": [resize, *steps]})


def test_gray_images_beside_an_rgb_network_are_refused_with_the_key_that_changes_it() -> None:
    gray = plan({"ToGray": {"num_output_channels": 1, "p": 1.0}})
    with pytest.raises(
        ModelError, match="expected images with 3 channels, got 1; write in_channels: 1 in the model"
    ):
        check_accepts(build_model(ModelSpec(name="timm:test_resnet", weights="none")), gray)
    check_accepts(build_model(ModelSpec(name="timm:test_resnet", weights="none", in_channels=1)), gray)


def test_a_gray_plan_is_compared_with_the_average_constants() -> None:
    spec = ModelSpec(name="resnet18", in_channels=1)
    to_gray = {"ToGray": {"num_output_channels": 1, "p": 1.0}}
    fitting = {"Resize": {"height": 224, "width": 224}}
    for mean, differs in ((0.449, False), (0.6, True)):
        given = Plan.model_validate(
            {
                "index": "i.parquet",
                "preprocess": [fitting, to_gray, {"Normalize": {"mean": [mean], "std": [0.226]}}],
            }
        )
        assert bool(data_warnings(spec, given)) == differs
