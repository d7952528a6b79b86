"""Findings against naive computations on generated records, and audits of tiny data sets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightwell.models.audits.findings.intervals import wilson
from lightwell.models.audits.gradcam.findings import compute_findings
from lightwell.models.audits.gradcam.gallery import choose_rows
from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.models.audits.gradcam.records import SCHEMA, read_predictions
from lightwell.models.audits.gradcam.report.class_sections import class_entries
from lightwell.models.audits.gradcam.report.summary import confusion_rows, lowest_recall, summary_cards
from lightwell.models.zoo.build import ModelSpec, build_model
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_batch_job
from PIL import Image

NAMES = ("ant", "bee", "cow", "dog", "elk", "fox", "gnu")
Row = dict[str, Any]


@st.composite
def audits(draw: st.DrawFn) -> tuple[list[Row], int, int]:
    """Generate records, the number of classes of the index, and the number including those only in the model."""
    num_index = draw(st.integers(1, 4))
    num_all = num_index + draw(st.integers(0, 3))
    known = draw(st.lists(st.booleans(), min_size=num_index, max_size=num_index))
    if num_all == num_index and not any(known):
        known[0] = True  # a model has outputs
    outputs = [number for number in range(num_all) if number >= num_index or known[number]]
    with_logits, with_boxes = draw(st.booleans()), draw(st.booleans())
    rows = []
    for place in range(draw(st.integers(1, 9))):
        label = draw(st.integers(-1, num_index - 1))
        logits = [draw(st.sampled_from([-2.0, 0.0, 0.5, 3.0])) for _ in outputs]
        best = sorted(range(len(outputs)), key=lambda output: -logits[output])
        softmax = np.exp(logits) / np.exp(logits).sum()
        is_known = label >= 0 and known[label]
        kind = draw(st.sampled_from(["map", "blank", "none"]))
        small = [1.0, 0.0, 0.0, draw(st.sampled_from([0.0, 1.0]))]
        rows.append({
            "key": f"{place}.png", "label": label, "known": is_known, "prediction": outputs[best[0]], "output": best[0],
            "logits": logits if with_logits else None, "confidence": float(softmax[best[0]]),
            "top5": [outputs[output] for output in best[:5]],
            "true_confidence": float(softmax[outputs.index(label)]) if is_known else None,
            "explained": outputs[best[0]],
            "map": None if kind == "none" else small if kind == "map" else [0.0] * 4,
            "map_scale": None if kind == "none" else float(kind == "map"),
            "map_true": small if is_known and kind == "map" else None,
            "map_true_scale": 1.0 if is_known and kind == "map" else None, "map_height": 2, "map_width": 2,
            "image_height": 32, "image_width": 32,
            "border_mass": draw(st.floats(0, 1, width=32)) if kind == "map" else None,
            "concentration": draw(st.floats(0, 1, width=32)) if kind == "map" else None,
            "blank": None if kind == "none" else kind == "blank", "blank_true": kind != "map" if is_known else None,
            "no_map": kind == "none",
            "hit": draw(st.booleans()) if with_boxes and is_known else None,
            "centre_hit": draw(st.booleans()) if with_boxes else None,
            "box_cover": draw(st.sampled_from([0.0, 0.3, 0.5, 0.8])) if with_boxes else None,
            "target_layer": "layer4",
            "model": json.dumps({"outputs": [outputs.index(n) if n in outputs else -1 for n in range(num_index)]}),
        })  # fmt: skip
    return rows, num_index, num_all


def table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def near(value: float | None) -> Any:
    return None if value is None else pytest.approx(value, abs=1e-6)


@settings(max_examples=150)
@given(audits())
def test_findings_equal_a_naive_computation(drawn: tuple[list[Row], int, int]) -> None:
    rows, num_index, num_all = drawn
    found = compute_findings(table(rows), NAMES[:num_all], num_index)
    labelled = [row for row in rows if row["known"]]
    right = [row for row in labelled if row["label"] == row["prediction"]]
    wrong = [row for row in labelled if row["label"] != row["prediction"]]
    assert found["num_images"] == len(rows)
    assert found["num_labelled"] == len(labelled)
    assert found["num_unknown_class"] == sum(row["label"] >= 0 and not row["known"] for row in rows)
    assert found["accuracy"] == near(mean([row in right for row in labelled]))
    recalls = [
        mean([row in right for row in labelled if row["label"] == number])
        for number in range(num_index)
        if any(row["label"] == number for row in labelled)
    ]
    assert found["balanced_accuracy"] == near(mean([one for one in recalls if one is not None]))
    assert sum(map(sum, found["confusion"])) == len(labelled)
    assert sum(found["confusion"][n][n] for n in range(num_index)) == len(right)
    for name in ("confidence", "border_mass", "concentration"):
        told = found[name]
        for key, some in (("mean", rows), ("right", right), ("wrong", wrong)):
            assert told[key] == near(mean([row[name] for row in some if row[name] is not None]))
        assert (told["difference"] is None) == (told["right"] is None or told["wrong"] is None)
    assert found["blank_maps"]["predicted"] == sum(row["blank"] is True for row in rows)
    assert found["num_without_map"] == sum(row["no_map"] for row in rows)
    assert sum(pair["count"] for pair in found["most_confused"]) == len(wrong)
    assert sum(entry["num_images"] for entry in found["per_class"]) == sum(row["label"] >= 0 for row in rows)
    assert sum(entry["num_predicted"] for entry in found["per_class"]) == len(rows)


@settings(max_examples=100)
@given(audits())
def test_auroc_is_the_fraction_of_correctly_ordered_pairs(drawn: tuple[list[Row], int, int]) -> None:
    rows, num_index, num_all = drawn
    found = compute_findings(table(rows), NAMES[:num_all], num_index)["auroc"]
    labelled = [row for row in rows if row["known"]]
    present = sorted({row["label"] for row in labelled})
    if len(present) < 2 or labelled[0]["logits"] is None:
        assert found is None
        return
    outputs = json.loads(rows[0]["model"])["outputs"]

    def odds(row: Row, output: int) -> float:
        others = [value for place, value in enumerate(row["logits"]) if place != output]
        return float(row["logits"][output] - np.log(np.exp(others).sum()))

    def area(number: int) -> float:
        in_any_box = [odds(row, outputs[number]) for row in labelled if row["label"] == number]
        outside = [odds(row, outputs[number]) for row in labelled if row["label"] != number]
        pairs = [0.5 if abs(a - b) < 1e-9 else float(a > b) for a in in_any_box for b in outside]
        return sum(pairs) / len(pairs)

    second = [number for number in present if outputs[number] == 1]
    numbers = second if len(rows[0]["logits"]) == 2 else present
    assert found == near(mean([area(number) for number in numbers]))


@settings(max_examples=100)
@given(audits())
def test_calibration_counts_every_labelled_image_once_and_its_error_is_in_0_to_1(
    drawn: tuple[list[Row], int, int],
) -> None:
    rows, num_index, num_all = drawn
    found = compute_findings(table(rows), NAMES[:num_all], num_index)["calibration"]
    labelled = [row for row in rows if row["known"]]
    if not labelled:
        assert found is None
        return
    assert sum(each["num_images"] for each in found["bins"]) == len(labelled)
    assert 0 <= found["ece"] <= 1
    for each in found["bins"]:
        assert each["from"] - 1e-6 <= each["confidence"] <= each["to"] + 1e-6
        assert 0 <= each["accuracy"] <= 1


@settings(max_examples=60)
@given(audits(), st.randoms(use_true_random=False))
def test_the_order_of_the_records_does_not_affect_the_findings(
    drawn: tuple[list[Row], int, int], chance: Any
) -> None:
    rows, num_index, num_all = drawn
    shuffled = list(rows)
    chance.shuffle(shuffled)
    first, second = (compute_findings(table(some), NAMES[:num_all], num_index) for some in (rows, shuffled))
    assert_near(first, second)


def assert_near(first: Any, second: Any) -> None:
    """Assert that two JSON values are equal, up to rounding of numbers."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_near(first[key], second[key])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_near(one, other)
    else:
        assert first == (near(first) if isinstance(first, float) else first)
        assert second == (near(first) if isinstance(first, float) else first)


@settings(max_examples=60)
@given(audits(), st.integers(0, 12))
def test_findings_are_json_and_the_report_has_every_image_at_most_once(
    drawn: tuple[list[Row], int, int], num: int
) -> None:
    rows, num_index, num_all = drawn
    records = table(rows)
    found = compute_findings(records, NAMES[:num_all], num_index)
    json.dumps(found, allow_nan=False)
    chosen = [row for some in choose_rows(read_predictions(records), num).values() for row in some]
    assert len(set(chosen)) == len(chosen) == min(num, len(rows))
    found |= {"map_size": [2, 2], "num_quarantined": 0, "counts": {}}
    found["border_mass"]["even_map"] = 0.36
    assert summary_cards(found)[0]["value"] == str(len(rows))
    assert all(len(row["cells"]) >= num_index for row in confusion_rows(found))
    assert all(entry["recall"] < 1 for entry in lowest_recall(found))
    class_entries(records, found, ())


@given(st.integers(0, 50), st.integers(0, 50))
def test_an_interval_contains_its_proportion_and_narrows_with_more_images(
    num_right: int, num_wrong: int
) -> None:
    num = num_right + num_wrong
    if not num:
        assert wilson(0, 0) is None
        return
    low, high = wilson(num_right, num) or (None, None)
    assert 0 <= low <= num_right / num + 1e-12
    assert num_right / num - 1e-12 <= high <= 1
    lower, higher = wilson(10 * num_right, 10 * num) or (None, None)
    assert higher - lower < high - low


Make = Callable[[Path], Path]


def photos(folder: Path, *names: str, level: int | None = None) -> Path:
    """Write small images of noise or of one gray level."""
    draw = np.random.default_rng(len(names))
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (
            draw.integers(0, 256, (64, 64, 3), np.uint8)
            if level is None
            else np.full((64, 64, 3), level, np.uint8)
        )
        Image.fromarray(pixels).save(path)
    return folder


def damaged(folder: Path) -> Path:
    photos(folder, "cat/0.png", "cat/1.png", "dog/2.png")
    path = folder / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:1500])
    return folder


def several(folder: Path) -> Path:
    photos(folder, "0.png", "1.png", "2.png")
    (folder / "t.csv").write_text("path,label\n0.png,cat|dog\n1.png,dog\n2.png,cat\n")
    return folder / "t.csv"


TINY: dict[str, Make] = {
    "one image": lambda folder: photos(folder, "cat/0.png"),
    "one class": lambda folder: photos(folder, "dog/0.png", "dog/1.png", "dog/2.png"),
    "no labels": lambda folder: photos(folder, "0.png", "1.png"),
    "several classes": several,
    "a replaced image": damaged,
    "constant images": lambda folder: photos(folder, "cat/0.png", "cat/1.png", "dog/2.png", level=0),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save(build_model(ModelSpec(name="squeezenet1_1", weights="none", num_classes=2)).state_dict(), path)
    return path


@pytest.mark.parametrize("answer", ["all cat", "all dog"])
@pytest.mark.parametrize("name", TINY)
def test_tiny_data_sets_are_audited(name: str, answer: str, weights: Path, tmp_path: Path) -> None:
    """Findings are consistent and a report is written, even if all predictions are correct or all are wrong."""
    state = torch.load(weights)
    state["classifier.1.bias"] = torch.tensor([50.0, 0.0] if answer == "all cat" else [0.0, 50.0])
    torch.save(state, tmp_path / "w.pth")
    build_index(TINY[name](tmp_path / "photos")).save(tmp_path / "index.parquet")
    plan = Plan.model_validate({"index": tmp_path / "index.parquet", "batch": {"size": 2}})
    model = ModelSpec(name="squeezenet1_1", weights=str(tmp_path / "w.pth"))
    job = GradCamAudit(plan=plan, model=model, class_names=("cat", "dog"), split=None, gallery=6)
    found = dict(run_batch_job(job, LocalEngine(num_threads=1), tmp_path / "out", SilentConsole()))
    assert json.loads((tmp_path / "out" / "findings.json").read_text()) == json.loads(json.dumps(found))
    said = answer.removeprefix("all ")
    index = plan.load_index()
    labels = index.table["label"].to_pylist()
    expected = [index.classes[label] for label in labels if label >= 0]
    if name == "a replaced image":
        assert found["counts"]["replaced"] == 1
        assert found["num_images"] == 2
        expected.remove("cat")
    assert found["num_labelled"] == len(expected)
    right = [one == said for one in expected]
    assert found["accuracy"] == (sum(right) / len(right) if right else None)
    assert found["auroc"] is None or len(set(expected)) == 2
    assert any("several classes" in note for note in found["notes"]) == (name == "several classes")
    page = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"\b(nan|inf)\b", re.sub(r"data:image/[^\"\s]+", "", page), re.IGNORECASE)
    assert page.count("model input") == found["num_images"]
