"""Networks for gray images and other numbers of channels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightwell.models.training.checkpoint import load_model
from lightwell.models.training.job import Classify
from lightwell.models.zoo.build import ModelSpec, build_model, weights_report
from lightwell.models.zoo.channels import num_input_channels, set_input_channels
from lightwell.models.zoo.plan_checks import check_accepts, data_warnings
from lightwell.pipeline.errors import ModelError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_training_job
from pictures import make_folder
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


def test_a_convolution_that_standardises_its_weights_is_reported_as_inexact(tmp_path: Path) -> None:
    rgb = build_model(ModelSpec(name="test_nfnet", weights="none"), seed=3)
    torch.save(rgb.state_dict(), tmp_path / "rgb.pth")
    gray = build_model(ModelSpec(name="test_nfnet", weights=str(tmp_path / "rgb.pth"), in_channels=1))
    assert "which standardises its weights" in weights_report(gray).line()
    x = torch.randn(1, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not torch.allclose(gray(x), rgb(x.expand(-1, 3, -1, -1)), rtol=1e-3)


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


TO_GRAY = {"ToGray": {"num_output_channels": 1, "p": 1.0}}


def plan(*steps: object) -> Plan:
    resize = {"Resize": {"height": 64, "width": 64}}
    return Plan.model_validate({"index": "i.parquet", "preprocess": [resize, *steps]})


def test_images_of_another_number_of_channels_are_refused_with_the_key_that_changes_it() -> None:
    rgb, gray = (
        build_model(ModelSpec(name="timm:test_resnet", weights="none", in_channels=num)) for num in (3, 1)
    )
    with pytest.raises(
        ModelError, match="expected images of 3 channels, got 1; write in_channels: 1 in the model"
    ):
        check_accepts(rgb, plan(TO_GRAY))
    with pytest.raises(
        ModelError, match=r"expected images of 1 channel, got 3; .*ToGray: {num_output_channels: 1"
    ):
        check_accepts(gray, plan())
    check_accepts(gray, plan(TO_GRAY))


def test_a_network_trained_on_gray_images_is_loaded_from_its_checkpoint(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    index = build_index(tmp_path / "photos", fractions={"train": 0.5, "val": 0.5})
    index.save(tmp_path / "index.parquet")
    job = Classify(
        plan=Plan.model_validate(
            {**plan(TO_GRAY).dump(), "index": tmp_path / "index.parquet", "batch": {"size": 4}}
        ),
        model=ModelSpec(name="timm:test_resnet", weights="none", in_channels=1),
        epochs=1,
        test_split=None,
    )
    run_training_job(job, LocalEngine(num_threads=1), tmp_path / "out", SilentConsole())
    loaded = load_model(tmp_path / "out" / "best.safetensors").model
    with torch.no_grad():
        assert loaded(torch.zeros(1, 1, 64, 64)).shape == (1, 2)


def test_a_gray_plan_is_compared_with_the_average_constants() -> None:
    spec = ModelSpec(name="resnet18", in_channels=1)
    fitting = {"Resize": {"height": 224, "width": 224}}
    for mean, differs in ((0.449, False), (0.6, True)):
        given = Plan.model_validate(
            {
                "index": "i.parquet",
                "preprocess": [fitting, TO_GRAY, {"Normalize": {"mean": [mean], "std": [0.226]}}],
            }
        )
        assert bool(data_warnings(spec, given)) == differs
