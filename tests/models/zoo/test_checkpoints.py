"""Checkpoints of other trainers, of parts of a network, and without a head."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from lightwell.models.zoo.build import ModelSpec, build_model, weights_report
from lightwell.models.zoo.load_checkpoint import load_checkpoint
from lightwell.pipeline.errors import ModelError
from torch import nn

State = dict[str, torch.Tensor]
TINY = "timm:test_resnet"
SMALL = "mobilenet_v3_small"


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    return build_model(ModelSpec(name=TINY, weights="none", num_classes=5), seed=1)


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return build_model(ModelSpec(name=SMALL, weights="none"), seed=1)


def saved(content: Any, path: Path) -> str:
    torch.save(content, path)
    return str(path)


def zeros(state: State) -> State:
    return {name: torch.zeros_like(value) for name, value in state.items()}


def named(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


WRAPPED: dict[str, tuple[Callable[[State], Any], str]] = {
    "state_dict": (lambda state: {"state_dict": state, "epoch": 3}, "state_dict"),
    "model": (lambda state: {"model": state}, "model"),
    "DataParallel": (lambda state: named(state, "module."), ""),
    "compiled": (lambda state: named(state, "_orig_mod."), ""),
    "compiled and parallel": (lambda state: {"model": named(state, "_orig_mod.module.")}, "model"),
    "Lightning": (
        lambda state: {"state_dict": named(state, "model."), "callbacks": {}, "hyper_parameters": {"lr": 0.1},
                       "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}]},
        "state_dict.model",
    ),
    "timm": (
        lambda state: {"epoch": 3, "arch": "net", "state_dict": zeros(state), "state_dict_ema": state,
                       "args": SimpleNamespace(lr=0.1), "metric": 71.3},
        "state_dict_ema",
    ),
    "torchvision": (
        lambda state: {"model": zeros(state), "model_ema": {**named(state, "module."), "n_averaged": torch.tensor(7)}},
        "model_ema",
    ),
    "EMA beside": (lambda state: {"model": zeros(state), "ema": OrderedDict(state)}, "ema"),
    "self-distillation": (lambda state: {"teacher": named(state, "backbone.")}, "teacher.backbone"),
}  # fmt: skip


SUFFIXES = {"Lightning": ".ckpt", "timm": ".pth.tar"}


@pytest.mark.parametrize("trainer", WRAPPED)
def test_weights_are_found_in_checkpoints_of_usual_trainers(
    tmp_path: Path, tiny: nn.Module, trainer: str
) -> None:
    wrap, entry = WRAPPED[trainer]
    path = saved(wrap(tiny.state_dict()), tmp_path / f"net{SUFFIXES.get(trainer, '.pth')}")
    model = build_model(ModelSpec(name=TINY, weights=path))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in tiny.state_dict().items())
    assert (weights_report(model).entry, weights_report(model).missing) == (entry, ())


@pytest.mark.parametrize("part", ["", "features."])
def test_a_trunk_is_loaded_with_a_new_head_and_a_report(tmp_path: Path, small: nn.Module, part: str) -> None:
    trunk = {name: value.half() for name, value in small.state_dict().items() if name.startswith("features.")}
    state = {f"{part}{name.removeprefix('features.')}": value for name, value in trunk.items()}
    path = saved(state, tmp_path / "trunk.pth")
    model = build_model(ModelSpec(name=SMALL, weights=path), num_classes=3)
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], value.to(loaded[name].dtype)) for name, value in trunk.items())
    report = weights_report(model)
    assert report.num_loaded == len(trunk)
    assert set(report.missing) == set(loaded) - set(trunk)
    assert report.untrained == ("classifier.0", "classifier.3")
    assert report.added_prefix == ("" if part else "features.")
    assert "randomly initialised: classifier.0, classifier.3" in report.line()
    assert "the file has no 'classifier.0', 'classifier.3': new head of 3 classes" in report.line()


def test_a_trunk_needs_the_number_of_classes_and_all_of_its_layers(tmp_path: Path, small: nn.Module) -> None:
    trunk = {name: value for name, value in small.state_dict().items() if name.startswith("features.")}
    with pytest.raises(ModelError, match=r"missing: classifier\.0\.weight"):
        build_model(ModelSpec(name=SMALL, weights=saved(trunk, tmp_path / "trunk.pth")))
    short = {name: value for name, value in trunk.items() if not name.startswith("features.12.")}
    with pytest.raises(ModelError, match=r"missing: features\.12\.0\.weight"):
        build_model(ModelSpec(name=SMALL, weights=saved(short, tmp_path / "short.pth")), num_classes=3)


def test_an_image_encoder_gets_a_new_head_or_that_of_the_file(tmp_path: Path) -> None:
    encoder = timm.create_model("test_vit", num_classes=0)
    probe = timm.create_model("test_vit", num_classes=4)
    trunk, whole = (saved(net.state_dict(), tmp_path / f"{net.num_classes}.pth") for net in (encoder, probe))
    for path, wanted, rows, untrained in (
        (trunk, 3, 3, ("head",)),
        (whole, None, 4, ()),
        (trunk, None, 0, ()),
    ):
        model = timm.create_model("test_vit", num_classes=0)
        report, _ = load_checkpoint(model, Path(path), None, wanted)
        assert (model.num_classes, report.untrained) == (rows, untrained)


def test_names_of_a_publisher_are_converted_as_by_timm(tmp_path: Path) -> None:
    encoder = timm.create_model("test_vit", num_classes=0)
    published = {**encoder.state_dict(), "mask_token": torch.zeros(1, 64)}
    model = build_model(
        ModelSpec(name="timm:test_vit", weights=saved(published, tmp_path / "dino.pth")), num_classes=3
    )
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in encoder.state_dict().items())
    assert (weights_report(model).left_over, weights_report(model).untrained) == (("mask_token",), ("head",))


def test_an_image_encoder_of_a_hub_is_built_as_a_classifier_of_the_classes_of_the_data() -> None:
    model = build_model(ModelSpec(name="vit_small_patch14_dinov2", weights="none"), num_classes=3)
    assert model.get_submodule("head").weight.shape == (3, 384)


def test_a_checkpoint_sets_the_number_of_channels(tmp_path: Path) -> None:
    gray = build_model(ModelSpec(name=TINY, weights="none", in_channels=1))
    path = saved(gray.state_dict(), tmp_path / "gray.pth")
    again = build_model(ModelSpec(name=TINY, weights=path))
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(gray(x), again(x))
    with pytest.raises(ModelError, match="in_channels: expected 1, the number of channels of the weights"):
        build_model(ModelSpec(name=TINY, weights=path, in_channels=4))
