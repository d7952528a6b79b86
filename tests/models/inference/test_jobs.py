"""Prediction and evaluation of an index: equal to the last bit, with nothing lost."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lightwell import LocalEngine, Plan, PlanError, RunError, View, build_index, run_batch_job
from lightwell.models.inference.evaluate import Evaluate
from lightwell.models.inference.evaluation.classes import match_labels
from lightwell.models.inference.outputs import softmax
from lightwell.models.inference.predict import Predict
from lightwell.models.training.checkpoint import load_model, read_metadata, save_checkpoint
from lightwell.models.training.evaluation import evaluate
from lightwell.models.training.tasks.classification import ClassificationTask
from lightwell.models.training.train_batch import to_train_batch
from pictures import make_picture, write_picture
from trained import save_trained

ENGINE = LocalEngine(num_threads=2)


def predictions(out: Path) -> Any:
    return pq.read_table(out / "predictions.parquet")


@pytest.fixture(scope="module")
def evaluated(plan: Plan, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "out"
    run_batch_job(Evaluate(plan=plan, checkpoint=checkpoint, split=None, bootstrap=50), ENGINE, out)
    return out


def test_predictions_equal_those_of_the_evaluation_to_the_last_bit(
    plan: Plan, checkpoint: Path, evaluated: Path, tmp_path: Path
) -> None:
    run_batch_job(Predict(plan=plan, checkpoint=checkpoint), LocalEngine(num_threads=1), tmp_path / "out")
    assert predictions(tmp_path / "out").equals(predictions(evaluated))


def test_an_evaluation_has_the_metrics_of_the_training_at_any_temperature(
    plan: Plan, checkpoint: Path, evaluated: Path
) -> None:
    device = torch.device("cpu")
    with ENGINE.feed(plan, View()) as feed:
        batches = [to_train_batch(batch, device) for batch in feed]
    index = plan.load_index()
    task = ClassificationTask(index, index.rows())
    expected = evaluate(load_model(checkpoint).model, batches, task, len(index.rows())).as_dict()
    found = json.loads((evaluated / "evaluation.json").read_text())
    for name in ("loss", "images", "accuracy", "balanced_accuracy", "auroc"):
        assert found[name] == pytest.approx(expected[name], abs=1e-6)
    assert found["unusable"] == 1
    assert sum(map(sum, found["confusion"])) == 11
    assert [row["class"] for row in found["per_class"]] == ["cat", "dog"]
    assert sum(row["images"] for row in found["per_class"]) == 11
    low, high = found["intervals"]["accuracy"]
    assert low <= found["accuracy"] <= high
    assert found["temperature"] == 1.5
    assert found["calibration"] != found["calibration_without_temperature"]
    assert (evaluated / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert (evaluated / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_every_image_of_a_folder_without_labels_is_listed(
    checkpoint: Path, plan: Plan, tmp_path: Path
) -> None:
    for number in range(5):
        write_picture(tmp_path / "flat" / f"{number}.png", make_picture(number))
    (tmp_path / "flat" / "note.png").write_text("no picture")
    build_index(tmp_path / "flat").save(tmp_path / "index.parquet")
    flat = plan.model_copy(update={"index": tmp_path / "index.parquet"})
    found = run_batch_job(Predict(plan=flat, checkpoint=checkpoint), ENGINE, tmp_path / "out")
    assert found["images"] == 6
    assert found["predicted"] == sum(found["classes"].values()) == 5
    assert found["unusable"] == 1
    table = predictions(tmp_path / "out").to_pylist()
    assert [row["key"] for row in table] == [*(f"{number}.png" for number in range(5)), "note.png"]
    assert table[-1]["class"] is None
    assert table[-1]["error"]
    assert table[0]["probability"] == max(table[0]["probabilities"])
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [row["class"] or "" for row in table]
    with pytest.raises(PlanError, match="use `lightwell predict` for images without labels"):
        run_batch_job(Evaluate(plan=flat, checkpoint=checkpoint, split=None), ENGINE, tmp_path / "evaluated")


def test_a_flip_averages_the_probabilities_of_both_sides(
    plan: Plan, checkpoint: Path, tmp_path: Path
) -> None:
    run_batch_job(Predict(plan=plan, checkpoint=checkpoint, tta="flip"), ENGINE, tmp_path / "out")
    model, expected = load_model(checkpoint).model, []
    with ENGINE.feed(plan, View()) as feed, torch.inference_mode():
        for batch in feed:
            sides = (model(batch.images), model(batch.images.flip(-1)))
            expected.append(sum(softmax(side.numpy(), 1.5) for side in sides) / 2)
    found = predictions(tmp_path / "out")["probabilities"].drop_null().to_pylist()
    assert np.allclose(found, np.concatenate(expected), atol=1e-5)


def test_augmented_views_are_averaged_over_each_image(plan: Plan, checkpoint: Path, tmp_path: Path) -> None:
    run_batch_job(Predict(plan=plan, checkpoint=checkpoint, tta=3), ENGINE, tmp_path / "out")
    model, views = load_model(checkpoint).model, {}
    with ENGINE.feed(plan, View(augment=True, num_epochs=3)) as feed, torch.inference_mode():
        for batch in feed:
            for key, row in zip(batch.keys, softmax(model(batch.images).numpy(), 1.5), strict=True):
                views.setdefault(key, []).append(row)
    table = [row for row in predictions(tmp_path / "out").to_pylist() if row["class"]]
    assert len(table) == 11
    for row in table:
        assert len(views[row["key"]]) == 3
        assert np.allclose(row["probabilities"], np.mean(views[row["key"]], axis=0), atol=1e-5)


def test_views_that_cannot_be_drawn_are_refused(plan: Plan, checkpoint: Path) -> None:
    bare = plan.model_copy(update={"augment": ()})
    with pytest.raises(
        PlanError, match=r"expected a plan with `augment` to draw views from.*write tta: flip"
    ):
        Predict(plan=bare, checkpoint=checkpoint, tta=2)
    with pytest.raises(PlanError, match="remove them"):
        Predict(plan=Plan(**{**plan.dump(), "sampling": "balanced"}), checkpoint=checkpoint, tta=2)


def test_classes_are_matched_by_name_and_unknown_ones_left_out() -> None:
    labels, notes = match_labels(np.asarray([0, 1, 2, -1]), ("dog", "newt", "cat"), ("cat", "dog"))
    assert labels.tolist() == [1, -1, 0, -1]
    assert notes == ["1 images of 'newt' are not evaluated: no such output"]
    with pytest.raises(PlanError, match=r"expected some of the checkpoint's \('cat', 'dog'\), got 'newt'"):
        match_labels(np.asarray([0]), ("newt",), ("cat", "dog"))


def test_an_evaluation_without_any_labelled_image_fails_and_writes_no_result(
    plan: Plan, tmp_path: Path
) -> None:
    path = save_trained(tmp_path / "a.safetensors", plan, classes=("cat", "cow"))
    index = plan.load_index()
    table = index.table.filter([uri.endswith("dog/001.jpg") for uri in index.table["uri"].to_pylist()])
    type(index)(table, index.classes).save(tmp_path / "index.parquet")
    dogs = plan.model_copy(update={"index": tmp_path / "index.parquet"})
    with pytest.raises(RunError, match="expected labelled images"):
        run_batch_job(Evaluate(plan=dogs, checkpoint=path, split=None), ENGINE, tmp_path / "out")
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_scores_that_are_not_finite_end_the_run_and_name_the_image(
    plan: Plan, checkpoint: Path, tmp_path: Path
) -> None:
    model = load_model(checkpoint).model
    with torch.no_grad():
        model.fc.weight.fill_(3e38)
    save_checkpoint(tmp_path / "a.safetensors", model, read_metadata(checkpoint)[0])
    with pytest.raises(RunError, match=r"expected finite scores, got NaN or infinity for 'cat/000.jpg'"):
        run_batch_job(Predict(plan=plan, checkpoint=tmp_path / "a.safetensors"), ENGINE, tmp_path / "out")
