"""Probes: nearest neighbours, logistic regression and a grid of heads on the features of a frozen network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lightwell import LocalEngine, ModelSpec, Plan, View, build_index
from lightwell.models.features.probe import GridOptions, ProbeFeatures
from lightwell.models.features.probe_heads import Grid, Neighbours, Standardizer, logistic_heads
from lightwell.models.training.checkpoint import load_model
from lightwell.models.training.evaluation import evaluate
from lightwell.models.training.train_batch import to_train_batch
from lightwell.pipeline.errors import ModelError
from lightwell.workers.local import run_training_job

MODEL = ModelSpec(name="timm:test_resnet", weights="none")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One torch thread, so that sums do not depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def clusters() -> tuple[np.ndarray, np.ndarray]:
    """Ninety points of three classes that a linear classifier separates, on a large offset."""
    generator = np.random.default_rng(1)
    labels = np.arange(90) % 3
    centres = 4 * generator.normal(size=(3, 8))
    return 50 + centres[labels] + generator.normal(size=(90, 8)), labels


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Bright and dark pictures of 32 px: 16 to train with, 8 to validate, 8 to test."""
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(2)
    for split, count in (("train", 16), ("val", 8), ("test", 8)):
        for number in range(count):
            name, brightness = (("dark", 80), ("light", 170))[number % 2]
            (root / split / name).mkdir(parents=True, exist_ok=True)
            image = np.clip(generator.normal(brightness, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
            assert cv2.imwrite(str(root / split / name / f"{number}.png"), image)
    build_index(root).save(root / "index.parquet")
    return Plan.model_validate({"index": root / "index.parquet", "batch": {"size": 4}})


def test_every_probe_separates_what_is_separable(clusters: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = clusters
    grid = Grid(rates=(0.1, 1e-9), weight_decays=(0.0,), epochs=40, batch_size=32)
    heads = [*logistic_heads(features, labels, 3, (1.0,)), *grid.heads(features, labels, 3)]
    probes = [*heads, Neighbours(features, labels, 3, k=5)]
    right = [(probe.log_probabilities(features).argmax(axis=1) == labels).mean() for probe in probes]
    assert right[0] == right[1] == 1
    assert right[3] > 0.9
    for probe in probes:
        np.testing.assert_allclose(np.exp(probe.log_probabilities(features)).sum(axis=1), 1, rtol=1e-6)


def test_a_head_of_a_grid_equals_the_one_trained_alone(clusters: tuple[np.ndarray, np.ndarray]) -> None:
    """With SGD of torch, on the same batches."""
    features, labels = clusters
    options = {"epochs": 2, "batch_size": 90}
    found = list(Grid(rates=(0.01, 0.1), weight_decays=(0.0, 0.01), **options).heads(features, labels, 3))
    assert [head.options for head in found] == [
        {"rate": rate, "weight_decay": decay} for rate in (0.01, 0.1) for decay in (0.0, 0.01)
    ]
    inputs = torch.from_numpy(Standardizer.of(features)(features)).float()
    layer = torch.nn.Linear(8, 3)
    torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
    groups = [{"params": [layer.weight], "weight_decay": 0.01}, {"params": [layer.bias]}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    for step in range(2):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * 0.5 * (1 + np.cos(np.pi * step / 2))
        loss = torch.nn.functional.cross_entropy(layer(inputs), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    expected = layer(inputs).log_softmax(dim=1).detach()
    # torch's momentum holds gradients, ours too, so that the schedule scales both alike
    np.testing.assert_allclose(found[3].log_probabilities(features), expected, rtol=1e-3, atol=1e-4)


def test_the_best_probe_is_tested_and_its_network_saved(plan: Plan, tmp_path: Path) -> None:
    grid = GridOptions(rates=(1e-2,), weight_decays=(0.0,), epochs=20)
    job = ProbeFeatures(plan=plan, model=MODEL, logistic=(0.1,), grid=grid, blocks=("layer2",))
    result = run_training_job(job, LocalEngine(num_threads=1), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result
    tried = [(row["method"], row["block"]) for row in result["probes"]]
    assert tried == [
        (method, block) for block in ("layer2", "head") for method in ("knn", "logistic", "linear")
    ]
    assert result["test"]["accuracy"] >= 0.75
    assert result["saved"]["block"] == "head"
    loaded = load_model(tmp_path / "out" / "best.safetensors")
    assert loaded.classes == ("dark", "light")
    with LocalEngine(num_threads=1).feed(plan, View(split="val")) as feed:
        batches = [to_train_batch(batch, torch.device("cpu")) for batch in feed]
    outcome = evaluate(loaded.model, batches, job.head_only.check(), 8)
    assert outcome.loss == pytest.approx(result["saved"]["validation"]["loss"], rel=1e-3)


def test_a_second_probe_finds_the_features_of_the_first_and_the_same_result(
    plan: Plan, tmp_path: Path
) -> None:
    cached = plan.model_copy(
        update={"cache": Plan.model_validate({**plan.model_dump(), "cache": str(tmp_path / "cache")}).cache}
    )
    job = ProbeFeatures(plan=cached, model=MODEL, grid=None, logistic=(0.1,))
    results = [run_training_job(job, LocalEngine(num_threads=1), tmp_path / name) for name in "ab"]
    assert {**results[0], "checkpoint": ""} == {**results[1], "checkpoint": ""}
    counts = [json.loads((tmp_path / name / "counts.json").read_text())["read"] for name in "ab"]
    assert counts == [32, 0]


def test_a_block_that_does_not_exist_is_refused_with_those_that_do(plan: Plan) -> None:
    job = ProbeFeatures(plan=plan, model=MODEL, blocks=("layer9",))
    with pytest.raises(
        ModelError, match=r"blocks: expected blocks of .* got 'layer9'; did you mean 'layer4'"
    ):
        job.check_request(trains_here=True)
