"""Embeddings as Parquet: one row an image, the input of the network's classifier."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lightwell import LocalEngine, ModelSpec, Plan, View, build_index
from lightwell.cli.app import app
from lightwell.models.features.embed import Embed
from lightwell.models.training.train_batch import to_train_batch
from lightwell.models.zoo.build import build_model
from lightwell.pipeline.errors import ModelError, PlanError
from lightwell.workers.local import run_batch_job
from pictures import make_folder
from typer.testing import CliRunner

RANDOM = ModelSpec(name="timm:test_resnet", weights="none", num_classes=3)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Ten pictures of two classes in two splits."""
    folder = tmp_path_factory.mktemp("embed")
    for split, num_images in (("train", 6), ("test", 4)):
        make_folder(folder / "photos" / split, num_images=num_images)
    build_index(folder / "photos").save(folder / "index.parquet")
    plan = Plan.model_validate(
        {
            "index": folder / "index.parquet",
            "preprocess": [{"Resize": {"height": 32, "width": 32}}],
            "batch": {"size": 4},
        }
    )
    plan.save(folder / "plan.yaml")
    return plan


def test_a_row_has_key_label_class_split_and_the_input_of_the_classifier(plan: Plan, tmp_path: Path) -> None:
    job = Embed(plan=plan, model=RANDOM, untrained="allow")
    found = run_batch_job(job, LocalEngine(num_threads=1), tmp_path)
    table = pq.read_table(tmp_path / "features.parquet")
    assert (found["images"], found["width"]) == (10, table.schema.field("feature").type.list_size)
    index = plan.load_index()
    for name in ("key", "label", "split"):
        assert table[name].to_pylist() == index.table[name].to_pylist()
    assert table["class"].to_pylist() == [index.classes[label] for label in table["label"].to_pylist()]
    model = build_model(RANDOM)
    with torch.no_grad(), LocalEngine(num_threads=1).feed(plan, View()) as feed:
        expected = [
            model.forward_head(
                model.forward_features(to_train_batch(batch, torch.device("cpu")).inputs), pre_logits=True
            )
            for batch in feed
        ]
    np.testing.assert_allclose(
        np.array(table["feature"].to_pylist()), torch.cat(expected), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", ["squeezenet1_1", "timm:test_vit", "alexnet"])
def test_networks_of_every_kind_give_a_vector_an_image(plan: Plan, tmp_path: Path, name: str) -> None:
    side = 160 if name == "timm:test_vit" else 64
    plan = Plan.model_validate(
        {**plan.model_dump(), "preprocess": [{"Resize": {"height": side, "width": side}}]}
    )
    model = ModelSpec(name=name, weights="none")
    run_batch_job(Embed(plan=plan, model=model, split="test", untrained="allow"), LocalEngine(), tmp_path)
    features = np.array(pq.read_table(tmp_path / "features.parquet")["feature"].to_pylist())
    assert features.shape == (4, {"squeezenet1_1": 512, "timm:test_vit": 64, "alexnet": 4096}[name])
    assert np.isfinite(features).all()


def test_the_command_takes_a_plan_and_the_name_of_a_network_or_a_job_file(plan: Plan, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(build_model(RANDOM).state_dict(), weights)
    options = ["--model", "timm:test_resnet", "--weights", str(weights), "--split", "test", "--json"]
    out = CliRunner().invoke(
        app, ["embed", str(plan.index.with_name("plan.yaml")), "--out", str(tmp_path / "a"), *options]
    )
    assert out.exit_code == 0, out.output
    assert json.loads(out.stdout)["images"] == 4
    job_file = tmp_path / "embed.yaml"
    job_file.write_text(
        f"job: embed\nplan: {plan.index.with_name('plan.yaml')}\nsplit: test\n"
        f"model: {{name: timm:test_resnet, weights: {weights}}}\n"
    )
    again = CliRunner().invoke(app, ["embed", str(job_file), "--out", str(tmp_path / "b"), "--json"])
    assert again.exit_code == 0, again.output
    files = [(tmp_path / name / "features.parquet").read_bytes() for name in "ab"]
    assert files[0] == files[1]


def test_random_layers_and_two_networks_are_refused(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected trained weights, got randomly initialised layers"):
        run_batch_job(Embed(plan=plan, model=RANDOM), LocalEngine(), tmp_path)
    with pytest.raises(PlanError, match="expected exactly one of model and checkpoint, got neither"):
        Embed(plan=plan)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_the_machine_lacks_is_refused(plan: Plan, tmp_path: Path) -> None:
    job = Embed(plan=plan, model=RANDOM, untrained="allow", device="cuda")
    with pytest.raises(ModelError, match="device: expected auto, cpu or cuda, got 'cuda'"):
        run_batch_job(job, LocalEngine(), tmp_path)
