"""The network of a dataset audit may be a checkpoint of a training, which brings its preprocessing and its classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lightwell import ModelSpec, Plan, View, build_index
from lightwell.cli.app import app
from lightwell.models.audits.dataset.domain_stage import DOMAIN_SCHEMA, normalization_layers
from lightwell.models.audits.dataset.feature_plan import class_notes, feature_plan, network_facts
from lightwell.models.audits.dataset.job import DatasetAudit
from lightwell.models.features.embed import Embed
from lightwell.models.training.checkpoint import CheckpointMetadata, load_model, save_checkpoint
from lightwell.models.training.saved_plan import SavedPlan
from lightwell.models.zoo.build import build_model
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_batch_job
from pictures import make_folder
from typer.testing import CliRunner

SPEC = ModelSpec(name="timm:test_resnet", weights="none", num_classes=2)
STEPS = [{"Resize": {"height": 32, "width": 32}}, {"Normalize": {"mean": [0.4] * 3, "std": [0.3] * 3}}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures of cats and dogs, and a checkpoint of cats and cows."""
    root = tmp_path_factory.mktemp("network")
    index = root / "index.parquet"
    build_index(make_folder(root / "photos", num_images=10)).save(index)
    trained = SavedPlan.of(Plan.model_validate({"index": index, "preprocess": STEPS}))
    torch.manual_seed(0)
    metadata = CheckpointMetadata(SPEC, ("Cat", "cow"), "0", {}, ({"loss": 0.1},), plan=trained)
    save_checkpoint(root / "best.safetensors", build_model(SPEC), metadata)
    done = CliRunner().invoke(
        app,
        ["inspect", str(index), "--checkpoint", str(root / "best.safetensors"), "--out", str(root / "out")],
    )
    assert done.exit_code == 0, done.output
    (root / "printed.txt").write_text(done.output)
    return root


def test_features_are_those_of_the_checkpoint_with_its_own_preprocessing(
    folder: Path, tmp_path: Path
) -> None:
    plan = Plan.model_validate({"index": folder / "index.parquet", "preprocess": STEPS})
    checkpoint = folder / "best.safetensors"
    run_batch_job(Embed(plan=plan, checkpoint=checkpoint), LocalEngine(num_threads=1), tmp_path)
    expected = pq.read_table(tmp_path / "features.parquet")
    (found,) = (folder / "out" / "stages").glob("features-*")
    for name in ("key", "feature"):
        assert pq.read_table(found)[name].to_pylist() == expected[name].to_pylist()


def test_classes_that_the_checkpoint_or_the_index_lacks_are_said(folder: Path) -> None:
    network = json.loads((folder / "out" / "findings.json").read_text())["network"]
    assert network["name"] == SPEC.name
    new, absent = network["notes"]
    assert "1 of the 2 classes of the index (dog)" in new
    assert "1 of the checkpoint's 2 classes (cow)" in absent
    assert new in (folder / "out" / "report.html").read_text()
    assert new in (folder / "printed.txt").read_text()
    assert class_notes(("a b", "c"), ("C", "A_B")) == []


def test_a_plan_with_preprocessing_keeps_it(folder: Path) -> None:
    own = Plan.model_validate(
        {"index": folder / "index.parquet", "preprocess": [{"Resize": {"height": 48, "width": 48}}]}
    )
    assert feature_plan(own, None, folder / "best.safetensors") == own


def test_a_checkpoint_without_preprocessing_asks_for_a_plan(folder: Path, tmp_path: Path) -> None:
    save_checkpoint(
        tmp_path / "old.safetensors", build_model(SPEC), CheckpointMetadata(SPEC, ("a", "b"), "0", {}, ())
    )
    plan = Plan(index=folder / "index.parquet")
    with pytest.raises(PlanError, match="give the plan of its training with --plan"):
        _ = DatasetAudit(plan=plan, checkpoint=tmp_path / "old.safetensors").stages


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--weights", "none"), "expected --model beside it, got 'none' alone"),
        (
            ("--model", "resnet18", "--checkpoint", "best.safetensors"),
            "expected at most one of model and checkpoint, got both",
        ),
        (("--checkpoint", "absent.safetensors"), "absent.safetensors, which does not exist"),
    ],
)
def test_networks_that_cannot_be_used_are_refused_before_anything_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["inspect", str(folder / "index.parquet"), "--out", "out", *given])
    assert done.exit_code != 0
    assert message in f"{done.output} {done.exception}"
    assert not (tmp_path / "out").exists()


def test_statistics_of_normalization_layers_are_in_standard_deviations_of_training(folder: Path) -> None:
    (stage,) = (folder / "out" / "stages").glob("domain-*")
    rows = pq.read_table(stage).to_pylist()
    model = build_model(SPEC)
    assert {row["layer"] for row in rows} == set(normalization_layers(model))
    plan = Plan.model_validate({"index": folder / "index.parquet", "preprocess": STEPS})
    seen: list[torch.Tensor] = []
    name = rows[0]["layer"]
    loaded = load_model(folder / "best.safetensors").model
    loaded.get_submodule(name).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad(), LocalEngine(num_threads=1).feed(plan, View()) as feed:
        for batch in feed:
            loaded(batch.images)
    images = torch.cat(seen)
    own = [row for row in rows if row["layer"] == name]
    assert sum(row["num_images"] for row in own) == len(images) == 10
    # running statistics of a new layer are 0 and 1
    np.testing.assert_allclose(
        sum(np.array(row["sums"]) for row in own), images.mean((2, 3)).sum(0), rtol=1e-3
    )
    np.testing.assert_allclose(
        sum(np.array(row["squares"]) for row in own), images.square().mean((2, 3)).sum(0), rtol=1e-3
    )


def test_networks_without_batch_normalization_are_said_to_have_no_gap(folder: Path) -> None:
    audit = DatasetAudit(plan=Plan(index=folder / "index.parquet"), model=ModelSpec(name="squeezenet1_1"))
    facts = network_facts(audit, DOMAIN_SCHEMA.empty_table())
    assert facts is not None
    assert "no batch normalization" in facts["notes"][0]
