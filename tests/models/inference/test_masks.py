"""Masks of segmentation networks: of the size of the picture, measured as in training, the same in files and in Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lightwell import LocalEngine, Plan, PlanError, Program, RunError, View, build_index, load, run_batch_job
from lightwell.models.inference.evaluate import Evaluate
from lightwell.models.inference.masks.geometry import MaskGeometry
from lightwell.models.inference.masks.stage import mask_name, segmentation_task
from lightwell.models.inference.predict import Predict
from lightwell.models.training.checkpoint import load_model, read_metadata
from lightwell.models.training.evaluation import evaluate
from lightwell.models.training.train_batch import to_train_batch
from lightwell.pipeline.rng import derive_seed, numpy_generator
from lightwell.testing import assert_batch_job, assert_job_resumes
from pictures import make_picture, write_picture
from PIL import Image
from tasks import mask_set
from trained import save_segmenter

ENGINE = LocalEngine(num_threads=2)
SAMPLES = 30
STEPS: dict[str, Any] = {
    "preprocess": [
        {"LongestMaxSize": {"max_size": 32}},
        {"PadIfNeeded": {"min_height": 32, "min_width": 48}},
        {"Normalize": {"mean": [0.5] * 3, "std": [0.25] * 3}},
    ]
}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Pictures of 40 x 40 pixels, one of them cut off."""
    folder = tmp_path_factory.mktemp("masks")
    index = mask_set(folder, num_train=5, num_other=2, side=40)
    damaged = folder / "train-4.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    return Plan(index=index, **STEPS, batch={"size": 3}, errors={"on_error": "skip", "max_bad_share": None})


@pytest.fixture(scope="module")
def checkpoint(plan: Plan) -> Path:
    return save_segmenter(plan.index.parent / "best.safetensors", plan)


@pytest.fixture(scope="module")
def predicted(plan: Plan, checkpoint: Path) -> Path:
    out = plan.index.parent / "predicted"
    run_batch_job(Predict(plan=plan, checkpoint=checkpoint), ENGINE, out)
    return out


@pytest.fixture(scope="module")
def evaluated(plan: Plan, checkpoint: Path) -> Path:
    out = plan.index.parent / "evaluated"
    job = Evaluate(plan=plan, checkpoint=checkpoint, split=None, bootstrap=SAMPLES, seed=2)
    run_batch_job(job, ENGINE, out)
    return out


def read_mask(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


GEOMETRIES: dict[str, tuple[list[Any], bool]] = {
    "resize": ([{"Resize": {"height": 40, "width": 30}}], True),
    "pad": (STEPS["preprocess"][:2], True),
    "crop of a resize": (
        [{"SmallestMaxSize": {"max_size": 40}}, {"CenterCrop": {"height": 32, "width": 32}}],
        False,
    ),
    "padding crop": ([{"CenterCrop": {"height": 128, "width": 48, "pad_if_needed": True}}], False),
    "crop": ([{"Crop": {"x_min": 5, "y_min": 9, "x_max": 60, "y_max": 50}}, {"ToGray": {"p": 1.0}}], False),
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("size", [(90, 70), (61, 113)])
def test_planted_marks_come_back_to_their_place(name: str, size: tuple[int, int]) -> None:
    """Squares of 12 pixels; the pixels further than a network's pixel from an edge have to be right."""
    steps, sees_all = GEOMETRIES[name]
    program = Program.compile(Plan(index="none.parquet", evaluate=steps))
    down, across = np.indices(size) // 12
    planted = ((down + 3 * across) % 7).astype(np.uint8)
    picture = np.zeros((*size, 3), np.uint8)
    image = program.compose(augment=False)(image=picture, mask=planted)["mask"]
    geometry = MaskGeometry(program)
    found = geometry.to_picture(np.where(image > 6, 0, image).astype(np.uint8), size)
    assert not geometry.obstacle
    assert found.shape == size
    inner = cv2.erode(planted, np.ones((9, 9))) == cv2.dilate(planted, np.ones((9, 9)))
    seen = found != 255
    assert seen.all() == sees_all
    assert (inner & seen).sum() > 100
    assert np.array_equal(found[inner & seen], planted[inner & seen])


def test_a_transform_that_cannot_be_undone_leaves_masks_in_the_networks_size(
    plan: Plan, tmp_path: Path
) -> None:
    steps = [{"Resize": {"height": 32, "width": 32}}, {"Transpose": {"p": 1.0}}]
    turned = Plan(index=plan.index, preprocess=steps, errors=plan.errors)
    path = save_segmenter(tmp_path / "a.safetensors", turned)
    found = run_batch_job(Predict(plan=turned, checkpoint=path, split="test"), ENGINE, tmp_path / "out")
    assert found["warnings"] == ["masks have the size of the network's images: Transpose cannot be undone"]
    assert {read_mask(each).shape for each in (tmp_path / "out" / "masks").iterdir()} == {(32, 32)}


def test_masks_are_the_classes_with_the_highest_scores_and_the_table_has_their_shares(
    plan: Plan, checkpoint: Path, predicted: Path
) -> None:
    table = pq.read_table(predicted / "predictions.parquet").to_pylist()
    assert [row["key"] for row in table if row["error"]] == ["train-4.png"]
    geometry, model = MaskGeometry(Program.compile(plan)), load_model(checkpoint).model
    expected = {}
    with ENGINE.feed(plan, View()) as feed, torch.inference_mode():
        for batch in feed:
            for key, scores in zip(batch.keys, model(batch.images), strict=True):
                expected[key] = geometry.to_picture(scores.argmax(dim=0).byte().numpy(), (40, 40))
    assert len(expected) == 8
    for row in table[:-1]:
        mask = read_mask(predicted / row["mask"])
        assert np.array_equal(mask, expected[row["key"]])
        assert (row["height"], row["width"]) == mask.shape == (40, 40)
        assert row["shares"] == pytest.approx([(mask == 0).mean(), (mask == 1).mean()])
    assert all(np.ptp(mask) == 1 for mask in expected.values())
    lines = (predicted / "predictions.csv").read_text().splitlines()
    assert lines[0] == "key,mask,share of ground,share of disc,error"
    assert len(lines) == 10


def test_an_evaluation_has_the_metrics_of_the_training_and_the_shares_of_the_predictions(
    plan: Plan, checkpoint: Path, predicted: Path, evaluated: Path
) -> None:
    index = plan.load_index()
    task = segmentation_task(read_metadata(checkpoint)[0], index)
    with ENGINE.feed(plan, View()) as feed:
        batches = [to_train_batch(batch, torch.device("cpu"), task.targets) for batch in feed]
    result = evaluate(load_model(checkpoint).model, batches, task, len(index.rows()))
    found = json.loads((evaluated / "evaluation.json").read_text())
    assert found["loss"] == pytest.approx(result.loss, abs=1e-6)
    assert found["confusion"] == result.metrics.details()["confusion"]
    for name in ("images", "ignored", "miou", "pixel_accuracy"):
        assert found[name] == pytest.approx(result.as_dict()[name], abs=1e-9)
    matrix = np.asarray(found["confusion"])
    dice = 2 * np.diag(matrix) / (matrix.sum(axis=0) + matrix.sum(axis=1))
    assert [row["dice"] for row in found["per_class"]] == pytest.approx(dice.tolist())
    assert (found["dice"], found["unusable"]) == (pytest.approx(dice.mean()), 1)
    names = ["key", "height", "width", "shares", "error"]
    ours, theirs = (
        pq.read_table(out / "predictions.parquet", columns=names) for out in (evaluated, predicted)
    )
    assert ours.equals(theirs)


def test_intervals_are_percentiles_of_the_metrics_of_resampled_pictures(
    plan: Plan, checkpoint: Path, evaluated: Path
) -> None:
    task = segmentation_task(read_metadata(checkpoint)[0], plan.load_index())
    model, matrices = load_model(checkpoint).model, []
    with ENGINE.feed(plan, View()) as feed, torch.inference_mode():
        for batch in feed:
            for truth, scores in zip(task.targets(batch).own, model(batch.images), strict=True):
                pairs = (truth * 2 + scores.argmax(dim=0))[truth >= 0]
                matrices.append(torch.bincount(pairs, minlength=4).view(2, 2).numpy())
    matrices = [matrix for matrix in matrices if matrix.any()]
    found = json.loads((evaluated / "evaluation.json").read_text())
    count = len(matrices)
    drawn = numpy_generator(derive_seed("bootstrap", 2, 0, "")).integers(0, count, (SAMPLES, count))
    sums = [np.sum([matrices[number] for number in row], axis=0) for row in drawn]
    iou = np.array([np.diag(one) / (one.sum(axis=0) + one.sum(axis=1) - np.diag(one)) for one in sums])
    assert found["intervals"]["miou"] == pytest.approx(np.quantile(iou.mean(axis=1), (0.025, 0.975)))
    assert found["per_class"][1]["interval"] == pytest.approx(np.quantile(iou[:, 1], (0.025, 0.975)))
    accuracy = [np.trace(one) / one.sum() for one in sums]
    assert found["intervals"]["pixel_accuracy"] == pytest.approx(np.quantile(accuracy, (0.025, 0.975)))


def test_a_flip_averages_the_probabilities_of_both_sides(
    plan: Plan, checkpoint: Path, tmp_path: Path
) -> None:
    run_batch_job(
        Predict(plan=plan, checkpoint=checkpoint, split="val", tta="flip"), ENGINE, tmp_path / "out"
    )
    geometry, model = MaskGeometry(Program.compile(plan)), load_model(checkpoint).model
    with ENGINE.feed(plan, View(split="val")) as feed, torch.inference_mode():
        (batch,) = feed
        mean = model(batch.images).softmax(1) + model(batch.images.flip(-1)).softmax(1).flip(-1)
    for key, one in zip(batch.keys, mean, strict=True):
        expected = geometry.to_picture(one.argmax(dim=0).byte().numpy(), (40, 40))
        assert (read_mask(tmp_path / "out" / mask_name(key)) != expected).mean() < 0.01


def test_python_gives_the_masks_of_the_files(plan: Plan, checkpoint: Path, predicted: Path) -> None:
    folder = plan.index.parent
    keys = ["train-0.png", "none.png", "test-1.png", "train-0.png"]
    pixels = np.asarray(Image.open(folder / "val-0.png"))
    predictor = load(checkpoint, batch_size=2)
    found = predictor([*(folder / key for key in keys), pixels])
    assert [bool(error) for error in found.errors] == [False, True, False, False, False]
    assert found.masks[1] is None
    for key, mask in zip([*keys, "val-0.png"], found.masks, strict=True):
        assert mask is None or np.array_equal(mask, read_mask(predicted / mask_name(key)))
    assert np.isnan(found.shares[1]).all()
    assert found.shares[[0, 2, 3, 4]].sum(axis=1) == pytest.approx(1)
    assert predictor.classes == ("ground", "disc")
    wide = make_picture(3, 30, 90)
    assert predictor(wide).masks[0].shape == (30, 90)
    assert predictor.probabilities(wide).shape == (2, 32, 48)


def test_predicting_masks_keeps_the_contract_of_jobs_and_ends_the_same_wherever_it_stops(
    plan: Plan, checkpoint: Path, tmp_path: Path
) -> None:
    job = Predict(plan=plan, checkpoint=checkpoint, split="train")
    assert_batch_job(job, ENGINE, tmp_path, others=[LocalEngine(num_threads=1)])
    (tmp_path / "resumes").mkdir()
    assert_job_resumes(
        job,
        ENGINE,
        tmp_path / "resumes",
        outcome=lambda out, _: {path.name: path.read_bytes() for path in (out / "masks").glob("*")},
    )


def test_files_of_masks_stay_in_their_folder_and_differ_for_different_pictures() -> None:
    keys = [
        "a.jpg",
        "b/a.jpg",
        "b_a.jpg",
        "../../a.jpg",
        "x" * 300,
        "x" * 301,
        ".hidden",
        "ü.png",
        "/etc/a",
        "",
    ]
    keys.append(mask_name("b/a.jpg").removeprefix("masks/").removesuffix(".png"))
    names = [mask_name(key) for key in keys]
    assert names[0] == "masks/a.jpg.png"
    assert len(set(names)) == len(keys)
    for name in names:
        assert name.count("/") == 1
        assert len(name) < 150
        assert not name.startswith("masks/.")


def test_what_cannot_be_had_of_masks_is_refused_before_anything_is_written(
    plan: Plan, checkpoint: Path, tmp_path: Path
) -> None:
    flipping = plan.model_copy(update={"augment": Plan(index="a", augment=["HorizontalFlip"]).augment})
    with pytest.raises(PlanError, match=r"tta: expected none or flip for segmentation, .* got 2"):
        run_batch_job(Predict(plan=flipping, checkpoint=checkpoint, tta=2), ENGINE, tmp_path / "out")
    write_picture(tmp_path / "bare" / "0.png", make_picture(0))
    build_index(tmp_path / "bare").save(tmp_path / "index.parquet")
    bare = plan.model_copy(update={"index": tmp_path / "index.parquet"})
    with pytest.raises(PlanError, match="index: expected pictures with masks, got none"):
        run_batch_job(Evaluate(plan=bare, checkpoint=checkpoint, split=None), ENGINE, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(RunError, match="expected labelled images"):
        run_batch_job(
            Evaluate(plan=only(plan, "train-2.png", tmp_path), checkpoint=checkpoint, split=None),
            ENGINE,
            tmp_path / "out",
        )


def only(plan: Plan, key: str, folder: Path) -> Plan:
    """Return the plan with the mask of one picture's row taken away, and with another that is cut off."""
    index = plan.load_index()
    table = index.table.filter([each in (key, "train-4.png") for each in index.table["key"].to_pylist()])
    type(index)(table, index.classes).save(folder / "only.parquet")
    return plan.model_copy(update={"index": folder / "only.parquet"})
