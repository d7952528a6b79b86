"""The Grad-CAM audit: records, findings, the pointing game and the gallery's choice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from lightwell.models.audit.findings import describe, pointing_game
from lightwell.models.audit.gallery import choose_rows
from lightwell.models.audit.job import GradCamAudit
from lightwell.models.audit.measure import covered, even_border_mass, inside
from lightwell.models.audit.pictures import overlay, seen_pixels
from lightwell.models.audit.records import SCHEMA, answers, maps_of
from lightwell.models.training.checkpoint import Description, save_checkpoint
from lightwell.models.zoo import ModelSpec, build_model
from lightwell.pipeline.dataset.indexing import build_index
from lightwell.pipeline.engine.feed import LocalEngine
from lightwell.pipeline.errors import ModelError, PlanError
from lightwell.pipeline.jobfile import load_job
from lightwell.pipeline.plan import Plan
from lightwell.pipeline.progress import SilentConsole
from lightwell.workers.local import run_batch_job
from pictures import make_folder
from pydantic import ValidationError

SPEC = ModelSpec(name="resnet18", weights="none", num_classes=2)
PREPROCESS = [
    {"Resize": {"height": 64, "width": 64}},
    {"Normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}},
]


def row(**changes: object) -> dict[str, object]:
    """A record of a right answer whose map points at the upper left cell."""
    record = {
        "key": "a.jpg", "label": 0, "prediction": 0, "confidence": 0.9, "top5": [0, 1], "true_confidence": 0.9,
        "map": [1.0, 0.0, 0.0, 0.0], "map_true": [1.0, 0.0, 0.0, 0.0], "map_height": 2, "map_width": 2,
        "border_mass": 0.5, "concentration": 1.0, "blank": False, "blank_true": False, "hit": None,
        "centre_hit": None, "box_cover": None, "target_layer": "layer4",
    }  # fmt: skip
    return {**record, **changes}


def table(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Ten pictures of two classes, one of them cut off in the middle, all in the split ``test``."""
    root = tmp_path_factory.mktemp("audit")
    photos = make_folder(root / "photos", num_images=10)
    damaged = photos / "cat" / "004.jpg"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    index = root / "index.parquet"
    build_index(photos, fractions={"test": 1.0}).save(index)
    return Plan.model_validate({"index": index, "preprocess": PREPROCESS, "batch": {"size": 4}})


@pytest.fixture(scope="module")
def checkpoint(plan: Plan) -> Path:
    torch.manual_seed(0)
    path = plan.index.parent / "best.safetensors"
    save_checkpoint(path, build_model(SPEC), Description(SPEC, ("cat", "dog"), "0", {}, ()))
    lines = [json.dumps({"epoch": e, "split": "val", "loss": 1 / (e + 1), "accuracy": 0.5}) for e in range(3)]
    (path.parent / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def audited(plan: Plan, checkpoint: Path) -> Path:
    """The folder of a finished audit."""
    out = plan.index.parent / "out"
    job = GradCamAudit(plan=plan, checkpoint=checkpoint, gallery=6, credit="Pictures: made up")
    run_batch_job(job, LocalEngine(num_threads=1), out, SilentConsole())
    return out


def read(audited: Path) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.read_table(audited / "records.parquet")


def test_an_audit_leaves_a_record_for_every_image_that_could_be_read(audited: Path, plan: Plan) -> None:
    records = read(audited)
    findings = json.loads((audited / "findings.json").read_text())
    keys = plan.load_index().table["key"].to_pylist()
    assert sorted(records["key"].to_pylist()) == sorted(k for k in keys if k != "cat/004.jpg")
    assert records.schema.equals(SCHEMA)
    assert findings["num_images"] == 9
    assert findings["counts"]["read"] == findings["counts"]["used"] + findings["counts"]["replaced"]
    assert findings["num_quarantined"] == 1


def test_a_record_repeats_what_the_model_says(audited: Path, plan: Plan, checkpoint: Path) -> None:
    from lightwell.models.training.checkpoint import load_model

    records = read(audited)
    with LocalEngine(num_threads=1).feed(plan, GradCamAudit(plan=plan, checkpoint=checkpoint).view) as feed:
        batch = next(iter(feed))
    with torch.no_grad():
        softmax = load_model(checkpoint).model(batch.images).softmax(1)
    at = records["key"].to_pylist().index(batch.keys[0])
    assert records["prediction"][at].as_py() == int(softmax[0].argmax())
    assert records["confidence"][at].as_py() == pytest.approx(float(softmax[0].max()), abs=1e-5)


def test_maps_are_small_and_not_negative(audited: Path) -> None:
    maps = maps_of(read(audited))
    assert {small.shape for small in maps if small is not None} == {(2, 2)}
    assert all((small >= 0).all() for small in maps if small is not None)


def test_findings_name_model_plan_layer_and_versions(audited: Path, plan: Plan) -> None:
    findings = json.loads((audited / "findings.json").read_text())
    assert findings["plan_fingerprint"] == plan.fingerprint()
    assert findings["model"]["name"] == "resnet18"
    assert findings["target_layer"] == "layer4"
    assert (
        findings["versions"]["torch"] == torch.__version__.partition("+")[0] or findings["versions"]["torch"]
    )
    assert findings["classes"] == ["cat", "dog"]


def test_an_audit_of_a_published_model_may_know_more_classes_than_the_index(
    plan: Plan, tmp_path: Path
) -> None:
    spec = ModelSpec(name="squeezenet1_1", weights="none", num_classes=7)
    findings = run_batch_job(
        GradCamAudit(plan=plan, model=spec, gallery=0), LocalEngine(num_threads=1), tmp_path, SilentConsole()
    )
    assert findings["auroc"] is None
    assert sum(map(sum, findings["confusion"])) == 9


def test_the_classes_of_a_published_model_can_be_named_after_imagenet(plan: Plan) -> None:
    job = GradCamAudit(plan=plan, model=SPEC, class_names="imagenet")
    names = job.named_classes()
    assert len(names) == 1000
    assert (names[0], names[281], names[999]) == ("tench", "tabby", "toilet tissue")
    assert GradCamAudit(plan=plan, model=SPEC).named_classes() == ("cat", "dog")


def test_a_model_with_fewer_outputs_than_classes_is_refused(plan: Plan, tmp_path: Path) -> None:
    spec = ModelSpec(name="squeezenet1_1", weights="none", num_classes=1)
    job = GradCamAudit(plan=plan, model=spec)
    with pytest.raises(ModelError, match=r"wanted at least 2 outputs.*got 1; audit"):
        run_batch_job(job, LocalEngine(num_threads=1), tmp_path, SilentConsole())


def test_a_checkpoint_of_other_classes_is_refused(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_checkpoint(path, build_model(SPEC), Description(SPEC, ("dog", "cat"), "0", {}, ()))
    with pytest.raises(ModelError, match="wanted a model of the classes"):
        run_batch_job(
            GradCamAudit(plan=plan, checkpoint=path), LocalEngine(num_threads=1), tmp_path, SilentConsole()
        )


@pytest.mark.parametrize("given", [{}, {"model": {"name": "resnet18"}, "checkpoint": "a.safetensors"}])
def test_exactly_one_model_is_wanted(plan: Plan, given: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=r"wanted exactly one of model and checkpoint.*give checkpoint"):
        GradCamAudit(plan=plan, **given)


def test_a_job_file_with_neither_model_is_a_plan_error(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "audit.yaml").write_text(f"job: gradcam\nplan: {{index: {plan.index}}}\n")
    with pytest.raises(PlanError, match="wanted exactly one of model and checkpoint, got neither"):
        load_job(tmp_path / "audit.yaml", default="gradcam")


def test_figures_of_known_records() -> None:
    found = describe(
        table(
            row(key="a", label=0, prediction=0),
            row(key="b", label=0, prediction=1, border_mass=None, concentration=None, blank=True),
            row(key="c", label=1, prediction=1, confidence=0.8, border_mass=0.1),
            row(key="d", label=-1, prediction=1, border_mass=0.3),
        ),
        ["cat", "dog"],
    )
    assert found["num_images"] == 4
    assert found["num_labelled"] == 3
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == pytest.approx(0.75)
    assert found["confusion"] == [[1, 1], [0, 1]]
    assert found["auroc"] == pytest.approx(0.5)  # class 1: 0.8 against 0.1 and 0.9
    assert found["border_mass"]["mean"] == pytest.approx(0.3)
    assert found["border_mass"]["wrong"] is None
    assert found["blank_maps"]["predicted"] == 1
    assert found["most_confused"] == [{"label": "cat", "prediction": "dog", "count": 1}]


def test_pointing_game_leaves_out_large_boxes_and_prints_the_centre_beside_it() -> None:
    game = pointing_game(
        table(
            row(hit=True, centre_hit=False, box_cover=0.2),
            row(hit=False, centre_hit=True, box_cover=0.5, blank_true=True),
            row(hit=True, centre_hit=True, box_cover=0.51),
            row(),
        )
    )
    assert game is not None
    assert (game["num_images"], game["hits"], game["centre_rate"], game["num_blank"]) == (2, 1, 0.5, 1)
    assert game["tolerance_px"] == 0
    assert pointing_game(table(row())) is None


def test_boxes_that_overlap_cover_once() -> None:
    boxes = np.array([[0, 0, 50, 100], [25, 0, 75, 100]], np.float32)
    assert covered(boxes, 100, 100) == pytest.approx(0.75)
    assert inside(boxes, 74.5, 3)
    assert not inside(boxes, 75.5, 3)


def test_an_even_map_has_the_border_that_its_area_has() -> None:
    assert even_border_mass(7, 7) == pytest.approx(1 - 0.8**2, abs=0.01)


def test_the_gallery_prefers_sure_mistakes_and_spreads_the_right_ones_over_classes() -> None:
    wrong = [row(key=f"w{i}", label=0, prediction=1, confidence=0.5 + i / 100) for i in range(20)]
    right = [row(key=f"r{i}", label=i % 3, prediction=i % 3) for i in range(30)]
    records = answers(table(*wrong, *right))
    chosen = choose_rows(records, 12)
    assert [records.keys[i] for i in chosen["sure"]] == ["w19", "w18", "w17", "w16"]
    assert len(chosen["wrong"]) == 4
    assert sorted(records.labels[chosen["right"]].tolist()) == [0, 0, 1, 2]
    assert choose_rows(records, 0) == {"sure": [], "wrong": [], "right": [], "unlabelled": []}


def test_normalisation_is_undone_to_the_level() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 9, 3), np.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    normal = ((pixels / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
    assert (seen_pixels(normal, mean, std) == pixels).all()
    assert seen_pixels(pixels) is pixels or (seen_pixels(pixels) == pixels).all()


def test_an_overlay_leaves_pixels_without_evidence_alone() -> None:
    image = np.full((64, 64, 3), 90, np.uint8)
    drawn = overlay(image, np.array([[1, 0], [0, 0]], np.float32))
    assert (drawn[-1, -1] == 90).all()
    assert np.abs(drawn[0, 0].astype(int) - 90).max() > 60
