"""Evaluation of several labels per image: the training's metrics, from the scores that are predicted, with intervals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lightwell import LocalEngine, Plan, PlanError, View, run_batch_job
from lightwell.models.inference.evaluate import Evaluate
from lightwell.models.inference.evaluation.classes import match_label_sets
from lightwell.models.inference.evaluation.label_sets import average_precisions
from lightwell.models.inference.predict import Predict
from lightwell.models.training.checkpoint import load_model
from lightwell.models.training.evaluation import evaluate
from lightwell.models.training.tasks.multilabel import MultilabelTask
from lightwell.models.training.train_batch import to_train_batch
from lightwell.pipeline.rng import derive_seed, numpy_generator
from sklearn.metrics import average_precision_score, f1_score
from tasks import CHANNELS, multilabel_set
from trained import RESIZE_AND_CROP, save_trained

ENGINE = LocalEngine(num_threads=2)
THRESHOLDS = (0.3, 0.5, 0.7)
SAMPLES = 40


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    index = multilabel_set(tmp_path_factory.mktemp("labels"), num_train=14, num_other=9)
    errors = {"on_error": "skip", "max_bad_share": None}
    return Plan(index=index, **RESIZE_AND_CROP, batch={"size": 4}, errors=errors)


@pytest.fixture(scope="module")
def checkpoint(plan: Plan) -> Path:
    path = plan.index.parent / "best.safetensors"
    return save_trained(path, plan, classes=CHANNELS, task="multilabel", thresholds=THRESHOLDS)


@pytest.fixture(scope="module")
def evaluated(plan: Plan, checkpoint: Path) -> Path:
    out = plan.index.parent / "evaluated"
    job = Evaluate(plan=plan, checkpoint=checkpoint, split=None, bootstrap=SAMPLES, seed=3)
    run_batch_job(job, ENGINE, out)
    return out


def test_metrics_are_those_of_the_training_and_f1_that_of_the_predicted_labels(
    plan: Plan, checkpoint: Path, evaluated: Path
) -> None:
    index = plan.load_index()
    task = MultilabelTask(index, index.rows())
    with ENGINE.feed(plan, View()) as feed:
        batches = [to_train_batch(batch, torch.device("cpu"), task.targets) for batch in feed]
    expected = evaluate(load_model(checkpoint).model, batches, task, len(index.rows()))
    found = json.loads((evaluated / "evaluation.json").read_text())
    for name in ("loss", "map", "f1"):
        assert found[name] == pytest.approx(expected.as_dict()[name], abs=1e-6)
    assert (found["images"], found["ignored"]) == (31, 1)
    table = pq.read_table(evaluated / "predictions.parquet").to_pylist()
    sets = dict(zip(index.table["key"].to_pylist(), index.table["labels"].to_pylist(), strict=True))
    labelled = [row for row in table if sets[row["key"]] is not None]
    truth = np.array([[number in sets[row["key"]] for number in range(3)] for row in labelled])
    predicted = np.array([[name in row["class"].split("|") for name in CHANNELS] for row in labelled])
    f1 = f1_score(truth, predicted, average=None)
    assert [row["f1"] for row in found["per_class"]] == pytest.approx(f1.tolist())
    assert found["f1_at_thresholds"] == pytest.approx(f1.mean())
    assert [row["threshold"] for row in found["per_class"]] == [*THRESHOLDS]
    assert [row["images"] for row in found["per_class"]] == truth.sum(axis=0).tolist()
    assert [row["predicted"] for row in found["per_class"]] == predicted.sum(axis=0).tolist()


def test_intervals_are_percentiles_of_the_metrics_of_resampled_images(evaluated: Path, plan: Plan) -> None:
    found = json.loads((evaluated / "evaluation.json").read_text())
    index = plan.load_index()
    sets = dict(zip(index.table["key"].to_pylist(), index.table["labels"].to_pylist(), strict=True))
    table = [
        row
        for row in pq.read_table(evaluated / "predictions.parquet").to_pylist()
        if sets[row["key"]] is not None
    ]
    truth = np.array([[number in sets[row["key"]] for number in range(3)] for row in table])
    scores = np.array([row["probabilities"] for row in table])
    drawn = numpy_generator(derive_seed("bootstrap", 3, 0, "")).integers(0, len(table), (SAMPLES, len(table)))
    areas = np.array([average_precision_score(truth[rows], scores[rows], average=None) for rows in drawn])
    f1 = [f1_score(truth[rows], scores[rows] >= np.float32(THRESHOLDS), average="macro") for rows in drawn]
    for values, interval in (
        (areas.mean(axis=1), found["intervals"]["map"]),
        (f1, found["intervals"]["f1_at_thresholds"]),
        (areas[:, 1], found["per_class"][1]["interval"]),
    ):
        assert interval == pytest.approx(np.quantile(values, (0.025, 0.975)))


def test_predictions_equal_those_of_the_evaluation_to_the_last_bit(
    plan: Plan, checkpoint: Path, evaluated: Path, tmp_path: Path
) -> None:
    run_batch_job(Predict(plan=plan, checkpoint=checkpoint), LocalEngine(num_threads=1), tmp_path / "out")
    ours, theirs = (pq.read_table(path / "predictions.parquet") for path in (tmp_path / "out", evaluated))
    assert ours.equals(theirs)
    assert not (evaluated / "confusion.png").exists()


def test_the_average_precision_of_ties_and_of_absent_classes_is_scikit_learns() -> None:
    generator = np.random.default_rng(2)
    scores, truth = generator.integers(0, 6, 30).astype(float), generator.integers(-1, 2, 30)
    drawn = generator.integers(0, 30, (9, 30))
    weights = np.stack([np.bincount(row, minlength=30) for row in drawn]).astype(float)
    weights[-1] = truth == 0
    found = average_precisions(weights, scores, truth)
    rows = [[one for one in row if truth[one] >= 0] for row in drawn[:-1]]
    assert found[:-1] == pytest.approx([average_precision_score(truth[row], scores[row]) for row in rows])
    assert np.isnan(found[-1])


def test_classes_are_matched_by_name_and_those_of_one_side_are_left_out() -> None:
    sets = np.array([[1, 0, 1], [-1, -1, -1]], np.int8)
    matched, notes = match_label_sets(sets, ("red", "mauve", "blue"), ("blue", "green", "red"))
    assert matched.tolist() == [[1, -1, 1], [-1, -1, -1]]
    assert notes == [
        "'mauve': not evaluated, as no such output",
        "'green': not evaluated, as not in the index",
    ]


def test_labels_of_the_other_kind_are_refused_before_anything_is_written(plan: Plan, tmp_path: Path) -> None:
    one = save_trained(tmp_path / "one.safetensors", plan, classes=CHANNELS)
    with pytest.raises(PlanError, match=r"index: expected one class per image, .* got sets of labels"):
        run_batch_job(Evaluate(plan=plan, checkpoint=one), ENGINE, tmp_path / "out")
    assert not (tmp_path / "out").exists()
