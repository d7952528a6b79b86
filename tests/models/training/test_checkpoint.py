"""Checkpoints: round trip, and rejection of incomplete, damaged and other files."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from lightwell.models.training.checkpoint import (
    CheckpointMetadata,
    load_model,
    load_optimizer,
    load_weights,
    read_metadata,
    save_checkpoint,
)
from lightwell.models.training.saved_plan import SavedPlan
from lightwell.models.zoo.build import ModelSpec, build_model
from lightwell.models.zoo.weights_report import WeightsReport, weights_report
from lightwell.pipeline.errors import ModelError, OutputError, RunError
from lightwell.pipeline.plan.plan import Plan
from safetensors.torch import load_file, save_file

SPEC = ModelSpec(name="timm:test_resnet", weights="none", num_classes=3)
HISTORY = ({"loss": 1.5, "auroc": None}, {"loss": 1.25, "auroc": 0.75})
ABOUT = CheckpointMetadata(SPEC, ("ant", "bee", "élan"), "f" * 16, {"epochs": 2, "plan.seed": 0}, HISTORY)


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(1)
    return build_model(SPEC)


def steps(model: torch.nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        loss = model(torch.randn(2, 3, 16, 16, generator=generator)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_a_saved_model_is_loaded_with_its_classes_in_eval_mode(
    model: torch.nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, model.to(memory_format=torch.channels_last), ABOUT)
    state = torch.get_rng_state()
    loaded = load_model(path)
    assert torch.equal(state, torch.get_rng_state())
    assert loaded.classes == ("ant", "bee", "élan")
    assert loaded.metadata["plan_fingerprint"] == "f" * 16
    assert not any(part.training for part in loaded.model.modules())
    ours, theirs = model.state_dict(), loaded.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [item.name for item in tmp_path.iterdir()] == ["best.safetensors"]


def test_metadata_round_trip(model: torch.nn.Module, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.safetensors", model, ABOUT)
    metadata, header = read_metadata(tmp_path / "c.safetensors")
    assert metadata == ABOUT
    assert header["epoch"] == "1"


def test_equal_checkpoints_are_equal_files(model: torch.nn.Module, tmp_path: Path) -> None:
    for name in "abc":
        save_checkpoint(tmp_path / name, model, ABOUT)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_the_deterministic_part_of_a_plan_travels(model: torch.nn.Module, tmp_path: Path) -> None:
    policies = {
        "preprocess": [{"SmallestMaxSize": {"max_size": 40, "interpolation": 2}}],
        "evaluate": [{"CenterCrop": {"height": 32, "width": 32}}, "Normalize"],
    }
    plan = Plan(
        index=tmp_path / "index.parquet",
        **policies,
        augment=["HorizontalFlip"],
        decode="exact",
        seed=3,
        cache=tmp_path / "cache",
        batch={"size": 5},
    )
    about = dataclasses.replace(ABOUT, plan=SavedPlan.of(plan), temperature=1.75)
    save_checkpoint(tmp_path / "c.safetensors", model, about)
    found, header = read_metadata(tmp_path / "c.safetensors")
    assert found == about
    assert str(tmp_path) not in header["plan"]
    assert found.plan.to_plan(Path("other"), batch_size=7) == Plan(
        index="other", **policies, decode="exact", batch={"size": 7}
    )


def test_the_best_checkpoint_is_a_valid_weights_file(model: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, model, ABOUT)
    assert load_file(path).keys() == model.state_dict().keys()
    again = build_model(ModelSpec(name="timm:test_resnet", weights=str(path), num_classes=3))
    assert torch.equal(again.state_dict()["fc.weight"], model.state_dict()["fc.weight"])


@pytest.mark.parametrize("name", ["adamw", "sgd", "plain sgd"])
def test_a_restored_optimizer_takes_the_same_steps(name: str, model: torch.nn.Module, tmp_path: Path) -> None:
    def make(module: torch.nn.Module) -> torch.optim.Optimizer:
        if name == "adamw":
            return torch.optim.AdamW(module.parameters(), lr=1e-3)
        return torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9 if name == "sgd" else 0.0)

    optimizer = make(model)
    steps(model, optimizer, 2)
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, model, ABOUT, optimizer)
    other = build_model(SPEC)
    load_weights(path, other)
    resumed = make(other)
    load_optimizer(path, resumed)
    steps(model, optimizer, 2)
    steps(other, resumed, 2)
    ours, theirs = model.state_dict(), other.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_checkpoint_that_cannot_be_written_is_an_output_error(
    model: torch.nn.Module, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="expected to write"):
        save_checkpoint(tmp_path / "file" / "best.safetensors", model, ABOUT)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_neither_written_nor_loaded(
    value: float, model: torch.nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "best.safetensors"
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights["layer2.0.conv1.weight"][0, 0, 0, 0] = value
    save_file(weights, path, metadata=ABOUT.dump())
    with pytest.raises(ModelError, match=r"got NaN or infinity in layer2\.0\.conv1\.weight"):
        load_model(path)
    with torch.no_grad():
        model.fc.bias[0] = value
    before = path.read_bytes()
    with pytest.raises(RunError, match=r"training: .*fc\.bias"):
        save_checkpoint(path, model, ABOUT)
    assert path.read_bytes() == before


def test_the_weights_report_is_saved_and_loaded_with_the_model(
    model: torch.nn.Module, tmp_path: Path
) -> None:
    begun = WeightsReport("net.pth", 100, untrained=("fc",), notes=("random and frozen: conv1",))
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, model, dataclasses.replace(ABOUT, weights=begun, validation_notes="the loss"))
    metadata, _ = read_metadata(path)
    assert (metadata.weights, metadata.validation_notes) == (begun, "the loss")
    report = weights_report(load_model(path).model)
    assert (report.source, report.untrained, report.notes) == ("best.safetensors", (), begun.notes)
    save_checkpoint(path, model, dataclasses.replace(ABOUT, weights=begun, history=()))
    assert weights_report(load_model(path).model).untrained == ("fc",)


@pytest.mark.parametrize(("recorded", "works"), [(None, True), (True, True), (False, False)])
def test_checkpoints_of_googlenet_keep_their_transform_input(
    recorded: bool | None, works: bool, tmp_path: Path
) -> None:
    """Checkpoints without a recorded value were trained with it."""
    spec = ModelSpec(name="googlenet", weights="none", num_classes=3, transform_input=recorded)
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, build_model(spec), dataclasses.replace(ABOUT, model=spec))
    assert load_model(path).model.transform_input is works
    as_weights = ModelSpec(name="googlenet", weights=str(path))
    assert build_model(as_weights).transform_input is works
    assert (
        build_model(as_weights.model_copy(update={"transform_input": not works})).transform_input is not works
    )


def test_a_missing_checkpoint_is_reported_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"best\.safetensors.*does not exist; train first"):
        load_model(tmp_path / "best.safetensors")


def test_a_truncated_checkpoint_is_refused(model: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, model, ABOUT)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="expected a safetensors file"):
        load_model(path)


def test_other_safetensors_files_are_refused_with_a_hint(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "their.safetensors")
    with pytest.raises(ModelError, match="has no metadata of model and classes: use it as the weights"):
        load_model(tmp_path / "their.safetensors")


def test_another_format_version_is_refused(model: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata={**ABOUT.dump(), "format_version": "99"})
    with pytest.raises(ModelError, match="expected format 3, got 99"):
        load_model(path)


def test_weights_of_another_model_are_refused(model: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    weights = {name: tensor for name, tensor in model.state_dict().items() if name != "fc.bias"}
    save_file({name: tensor.clone() for name, tensor in weights.items()}, path, metadata=ABOUT.dump())
    with pytest.raises(ModelError, match=r"does not fit the model in its metadata: .*fc\.bias"):
        load_model(path)
