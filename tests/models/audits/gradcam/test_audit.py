"""Grad-CAM audit: records, findings, pointing game and selection of the gallery."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from lightwell.models.audits.gradcam.findings import compute_findings, pointing_game
from lightwell.models.audits.gradcam.gallery import choose_rows
from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.models.audits.gradcam.pictures import denormalize, overlay
from lightwell.models.audits.gradcam.records import SCHEMA, maps_of, read_predictions
from lightwell.models.training.checkpoint import CheckpointMetadata, save_checkpoint
from lightwell.models.zoo.build import ModelSpec, build_model
from lightwell.pipeline.errors import ModelError, PlanError
from lightwell.pipeline.jobs.job_file import load_job
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.jobs.stages import stage_keys
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_batch_job

SPEC = ModelSpec(name="resnet18", weights="none", num_classes=2)
TRAINED = ({"loss": 0.5},)


def row(**changes: object) -> dict[str, object]:
    """Return a record with a correct prediction whose map has its peak in the upper left cell."""
    record = {
        "key": "a.jpg", "label": 0, "known": True, "prediction": 0, "output": 0, "logits": None,
        "confidence": 0.9, "top5": [0, 1], "true_confidence": 0.9,
        "explained": 0, "map": [1.0, 0.0, 0.0, 0.0], "map_scale": 1.0,
        "map_true": [1.0, 0.0, 0.0, 0.0], "map_true_scale": 1.0, "map_height": 2, "map_width": 2,
        "image_height": 64, "image_width": 64, "no_map": False, "model": "{}",
        "border_mass": 0.5, "concentration": 1.0, "blank": False, "blank_true": False, "hit": None,
        "centre_hit": None, "box_cover": None, "target_layer": "layer4",
    }  # fmt: skip
    record["known"] = changes.get("label", 0) != -1
    return {**record, **changes}


def table(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def read(audited: Path) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.read_table(audited / "records.parquet")


def test_an_audit_has_a_record_for_every_readable_image(audited: Path, plan: Plan) -> None:
    records = read(audited)
    findings = json.loads((audited / "findings.json").read_text())
    keys = plan.load_index().table["key"].to_pylist()
    assert sorted(records["key"].to_pylist()) == sorted(k for k in keys if k != "cat/004.jpg")
    assert records.schema.equals(SCHEMA)
    assert findings["num_images"] == 9
    assert findings["counts"]["read"] == findings["counts"]["used"] + findings["counts"]["replaced"]
    assert findings["num_quarantined"] == 1


def test_a_record_holds_the_output_of_the_model(audited: Path, plan: Plan, checkpoint: Path) -> None:
    from lightwell.models.training.checkpoint import load_model

    records = read(audited)
    with LocalEngine(num_threads=1).feed(plan, GradCamAudit(plan=plan, checkpoint=checkpoint).view) as feed:
        batch = next(iter(feed))
    with torch.no_grad():
        softmax = load_model(checkpoint).model(batch.images).softmax(1)
    at = records["key"].to_pylist().index(batch.keys[0])
    assert records["prediction"][at].as_py() == int(softmax[0].argmax())
    assert records["confidence"][at].as_py() == pytest.approx(float(softmax[0].max()), abs=1e-5)


def test_maps_have_the_layer_size_and_are_non_negative(audited: Path) -> None:
    maps = maps_of(read(audited))
    assert {small.shape for small in maps if small is not None} == {(2, 2)}
    assert all((small >= 0).all() for small in maps if small is not None)


def test_findings_hold_model_plan_layer_and_versions(audited: Path, plan: Plan) -> None:
    findings = json.loads((audited / "findings.json").read_text())
    assert findings["plan_fingerprint"] == plan.fingerprint()
    assert findings["model"]["name"] == "resnet18"
    assert findings["target_layer"] == "layer4"
    assert (
        findings["versions"]["torch"] == torch.__version__.partition("+")[0] or findings["versions"]["torch"]
    )
    assert findings["classes"] == ["cat", "dog"]


def run(job: GradCamAudit, out: Path) -> dict[str, object]:
    return dict(run_batch_job(job, LocalEngine(num_threads=1), out, SilentConsole()))


def saved(path: Path, num_classes: int, **changes: float) -> ModelSpec:
    """Return a model spec with weights from a file without class names; ``weight=value`` fills a tensor with a value."""
    state = build_model(ModelSpec(name="squeezenet1_1", weights="none", num_classes=num_classes)).state_dict()
    for name, value in changes.items():
        state[name.replace("__", ".")].fill_(value)
    torch.save(state, path)
    return ModelSpec(name="squeezenet1_1", weights=str(path))


def test_accuracy_is_not_measured_for_outputs_without_names(
    plan: Plan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for num_classes in (7, 2):
        job = GradCamAudit(plan=plan, model=saved(tmp_path / "w.pth", num_classes), gallery=2)
        findings = run(job, tmp_path / str(num_classes))
        assert findings["accuracy"] is findings["auroc"] is findings["calibration"] is None
        assert findings["num_unknown_class"] == findings["num_images"] == 9
        (said,) = (record for record in caplog.records if "have no names" in record.message)
        assert f"{num_classes} outputs" in said.message
        assert said.levelname == "ERROR", "--quiet leaves it"
        caplog.clear()
        assert "have no names" in (tmp_path / str(num_classes) / "report.html").read_text()


def test_class_names_define_the_outputs(plan: Plan, tmp_path: Path) -> None:
    spec = saved(tmp_path / "w.pth", 3)
    names = tmp_path / "names.txt"
    names.write_text("bird\nDog\ncat\n")
    by_list = run(
        GradCamAudit(plan=plan, model=spec, class_names=("bird", "Dog", "cat"), gallery=0), tmp_path / "a"
    )
    by_file = run(GradCamAudit(plan=plan, model=spec, class_names=str(names), gallery=0), tmp_path / "b")
    assert by_list["accuracy"] == by_file["accuracy"] is not None
    assert by_list["num_labelled"] == 9
    rows = read(tmp_path / "a").to_pylist()
    outputs = {0: 1, 1: 2, 2: 0} if plan.load_index().classes == ("dog", "cat") else {0: 2, 1: 1, 2: 0}
    assert all(outputs[row["prediction"]] == row["output"] for row in rows)
    assert by_list["accuracy"] == sum(row["prediction"] == row["label"] for row in rows) / 9


def test_the_order_of_a_checkpoints_classes_does_not_matter(
    plan: Plan, checkpoint: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    model = build_model(SPEC)
    state = load_file(checkpoint)
    state["fc.weight"], state["fc.bias"] = state["fc.weight"].flip(0), state["fc.bias"].flip(0)
    model.load_state_dict(state)
    turned = tmp_path / "turned.safetensors"
    save_checkpoint(turned, model, CheckpointMetadata(SPEC, ("dog", "cat"), "0", {}, TRAINED))
    first = run(GradCamAudit(plan=plan, checkpoint=checkpoint, gallery=0), tmp_path / "a")
    second = run(GradCamAudit(plan=plan, checkpoint=turned, gallery=0), tmp_path / "b")
    for name in ("accuracy", "confusion", "per_class", "auroc"):
        assert first[name] == second[name]


def test_a_class_that_the_model_does_not_have_is_excluded_from_accuracy(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_checkpoint(path, build_model(SPEC), CheckpointMetadata(SPEC, ("cat", "bird"), "0", {}, TRAINED))
    findings = run(GradCamAudit(plan=plan, checkpoint=path, gallery=3), tmp_path / "out")
    cats = sum(row["label"] == 0 for row in read(tmp_path / "out").to_pylist())
    assert findings["num_labelled"] == cats
    assert findings["num_unknown_class"] == 9 - cats
    assert findings["model_classes"]["not_in_model"] == ["dog"]
    mapped = GradCamAudit(plan=plan, checkpoint=path, class_map={"dog": "bird"}, gallery=0)
    assert run(mapped, tmp_path / "mapped")["num_labelled"] == 9


def test_a_class_map_with_a_wrong_name_is_refused(plan: Plan, checkpoint: Path, tmp_path: Path) -> None:
    job = GradCamAudit(plan=plan, checkpoint=checkpoint, class_map={"dgo": "cat"})
    with pytest.raises(PlanError, match="did you mean 'dog'"):
        run(job, tmp_path)


def test_a_random_head_is_refused_and_reproducible_if_allowed(plan: Plan, tmp_path: Path) -> None:
    spec = saved(tmp_path / "w.pth", 5).model_copy(update={"num_classes": 2})
    with pytest.raises(
        ModelError, match=r"expected trained weights, got randomly initialised layers classifier\.1"
    ):
        run(GradCamAudit(plan=plan, model=spec), tmp_path / "refused")
    job = GradCamAudit(plan=plan, model=spec, untrained="allow", gallery=0)
    findings = run(job, tmp_path / "a")
    torch.manual_seed(99)
    run(job, tmp_path / "b")
    assert read(tmp_path / "a").equals(read(tmp_path / "b"))
    assert findings["model"]["untrained"] == ["classifier.1"]
    assert "not trained" in (tmp_path / "a" / "report.html").read_text()
    other = job.model_copy(update={"model": spec.model_copy(update={"num_classes": 3})})
    assert stage_keys(other.stages)["maps"] != stage_keys(job.stages)["maps"]


def test_a_model_with_nan_outputs_is_refused_with_the_first_image(plan: Plan, tmp_path: Path) -> None:
    job = GradCamAudit(
        plan=plan,
        model=saved(tmp_path / "w.pth", 2, classifier__1__bias=float("nan")),
        class_names="index",
    )
    with pytest.raises(ModelError, match=r"finite|NaN"):
        run(job, tmp_path / "out")


def test_maps_explain_a_chosen_class(plan: Plan, checkpoint: Path, tmp_path: Path) -> None:
    run(GradCamAudit(plan=plan, checkpoint=checkpoint, explain="dog", gallery=2), tmp_path / "out")
    assert set(read(tmp_path / "out")["explained"].to_pylist()) == {1}
    with pytest.raises(PlanError, match="did you mean 'dog'"):
        run(GradCamAudit(plan=plan, checkpoint=checkpoint, explain="dogg"), tmp_path / "wrong")


def test_a_missing_gpu_is_a_model_error(plan: Plan, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"device: expected .*cuda:9"):
        run(GradCamAudit(plan=plan, checkpoint=checkpoint, device="cuda:9"), tmp_path / "out")


def test_gates_on_numbers_of_the_findings(audited: Path) -> None:
    from lightwell.models.audits.gradcam.gate import METRICS, Gate
    from lightwell.pipeline.errors import RequestError

    findings = json.loads((audited / "findings.json").read_text())
    accuracy = findings["accuracy"]
    assert Gate.parse(f"accuracy < {accuracy + 0.1}").failure(findings)
    assert not Gate.parse(f"accuracy<{accuracy}").failure(findings)
    assert Gate.parse("num_images>8").failure(findings)
    with pytest.raises(RequestError, match="did you mean 'accuracy'"):
        Gate.parse("acuracy<0.5")
    with pytest.raises(RequestError, match=r"write 'accuracy<0\.8'"):
        Gate.parse("accuracy=0.5")
    with pytest.raises(RequestError, match="expected a measured pointing_game"):
        Gate.parse("pointing_game.hit_rate<0.5").check_measured(findings)
    assert not Gate.parse("pointing_game.hit_rate<0.5").failure(findings)
    for name in METRICS:
        if not name.startswith("pointing_game"):
            top, _, rest = name.partition(".")
            assert top in findings
            assert not rest or rest in findings[top]


@pytest.mark.parametrize("given", [{}, {"model": {"name": "resnet18"}, "checkpoint": "a.safetensors"}])
def test_exactly_one_model_is_required(plan: Plan, given: dict[str, object]) -> None:
    with pytest.raises(PlanError, match=r"expected exactly one of model and checkpoint.*give checkpoint"):
        GradCamAudit(plan=plan, **given)


def test_a_job_file_with_neither_model_is_a_plan_error(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "audit.yaml").write_text(f"job: gradcam\nplan: {{index: {plan.index}}}\n")
    with pytest.raises(PlanError, match="expected exactly one of model and checkpoint, got neither"):
        load_job(tmp_path / "audit.yaml", default="gradcam")


def test_findings_of_known_records() -> None:
    found = compute_findings(
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
    assert found["auroc"] is None  # the records have no logits
    assert found["num_unknown_class"] == 0
    assert found["calibration"]["ece"] == pytest.approx((0.9 + 0.9 + 0.8) / 3 - 2 / 3)  # all in 0.8 to 0.9
    assert found["border_mass"]["mean"] == pytest.approx(0.3)
    assert found["border_mass"]["wrong"] is None
    assert found["blank_maps"]["predicted"] == 1
    assert found["most_confused"] == [{"label": "cat", "prediction": "dog", "count": 1}]


def test_pointing_game_excludes_large_boxes_and_has_a_centre_baseline() -> None:
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


def test_the_gallery_prefers_confident_errors_and_balances_correct_ones_over_classes() -> None:
    wrong = [row(key=f"w{i}", label=0, prediction=1, confidence=0.5 + i / 100) for i in range(20)]
    right = [row(key=f"r{i}", label=i % 3, prediction=i % 3) for i in range(30)]
    records = read_predictions(table(*wrong, *right))
    chosen = choose_rows(records, 12)
    assert [records.keys[i] for i in chosen["sure"]] == ["w19", "w18", "w17", "w16"]
    assert len(chosen["wrong"]) == 4
    assert sorted(records.labels[chosen["right"]].tolist()) == [0, 0, 1, 2]
    assert choose_rows(records, 0) == {"sure": [], "wrong": [], "right": [], "unlabelled": []}


def test_denormalize_restores_exact_levels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 9, 3), np.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    normal = ((pixels / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
    assert (denormalize(normal, mean, std) == pixels).all()
    assert denormalize(pixels) is pixels or (denormalize(pixels) == pixels).all()


def test_an_overlay_keeps_pixels_without_evidence() -> None:
    image = np.full((64, 64, 3), 90, np.uint8)
    drawn = overlay(image, np.array([[1, 0], [0, 0]], np.float32))
    assert (drawn[-1, -1] == 90).all()
    assert np.abs(drawn[0, 0].astype(int) - 90).max() > 60
