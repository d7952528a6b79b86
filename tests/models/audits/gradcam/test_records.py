"""Records of the maps: every column against a plain computation from the model and the index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lightwell.models.audits.gradcam.features import FeatureProjection
from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.models.audits.gradcam.records import (
    NUM_FEATURES,
    SCHEMA,
    features_array,
    map_size,
    maps_array,
    maps_of,
)
from lightwell.models.explain.grad_cam import grad_cam
from lightwell.models.training.checkpoint import load_model
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_batch_job


@pytest.fixture(scope="module")
def records(plan: Plan, checkpoint: Path) -> pa.Table:
    """Records of an audit of all classes and roles."""
    out = plan.index.parent / "all"
    job = GradCamAudit(plan=plan, checkpoint=checkpoint, explain=("label", "second", "all"), gallery=0)
    run_batch_job(job, LocalEngine(num_threads=1), out, SilentConsole())
    return pq.read_table(out / "records.parquet")


@pytest.fixture(scope="module")
def seen(plan: Plan, checkpoint: Path) -> dict[str, torch.Tensor]:
    """Model inputs by key."""
    with LocalEngine(num_threads=1).feed(plan, GradCamAudit(plan=plan, checkpoint=checkpoint).view) as feed:
        return {key: image for batch in feed for key, image in zip(batch.keys, batch.images, strict=True)}


def test_signed_maps_of_every_class_and_role_are_those_of_the_model(
    records: pa.Table, seen: dict[str, torch.Tensor], checkpoint: Path
) -> None:
    images = torch.stack([seen[key] for key in records["key"].to_pylist()])
    model = load_model(checkpoint).model
    with grad_cam(model, "layer4") as cam:
        result = cam(images, [torch.zeros(9, dtype=torch.int64), torch.ones(9, dtype=torch.int64)])
    wanted = torch.stack(result.pre_relu, 1).numpy()  # (N, class, h, w)
    labels, order = records["label"].to_numpy(), np.argsort(-result.logits.numpy(), axis=1)
    assert records["map_classes"].to_pylist() == [[0, 1]] * 9
    assert records["second"].to_pylist() == order[:, 1].tolist()
    assert records["explained"].to_pylist() == labels.tolist()
    rows, limit = np.arange(9), 1e-3 * float(np.abs(wanted).max())  # float16
    for name, classes in (("map", labels), ("map_true", labels), ("map_second", order[:, 1])):
        assert np.allclose(maps_array(records, name), wanted[rows, classes], rtol=0, atol=limit)
    named = (
        np.asarray(records["maps"].to_pylist(), np.float32)
        * np.asarray(records["map_scales"].to_pylist())[..., None]
    )
    assert np.allclose(named.reshape(wanted.shape), wanted, rtol=0, atol=limit)
    assert (maps_array(records) < 0).any(), "signed"
    rectified = maps_array(records, rectified=True)
    assert np.array_equal(rectified, np.maximum(maps_array(records), 0))
    assert np.array_equal(rectified, np.stack([each for each in maps_of(records) if each is not None]))


def test_features_are_mean_activations_and_those_weighted_by_the_evidence(
    records: pa.Table, seen: dict[str, torch.Tensor], checkpoint: Path, plan: Plan
) -> None:
    images = torch.stack([seen[key] for key in records["key"].to_pylist()])
    with grad_cam(load_model(checkpoint).model, "layer4") as cam:
        result = cam(images, [lambda logits: logits.argmax(1)])
    activations, maps = result.activations_nchw.numpy(), result.maps[0].numpy()
    project = FeatureProjection(plan.seed)
    features, evidence = features_array(records), features_array(records, "evidence_features")
    for row in range(9):
        mean = np.array([channel.mean() for channel in activations[row]])
        assert np.allclose(features[row], project(torch.from_numpy(mean)[None])[0], atol=2e-2, rtol=2e-3)
        if maps[row].max() <= 0:
            assert np.isnan(evidence[row]).all()
            continue
        weighted = np.array([(channel * maps[row]).sum() / maps[row].sum() for channel in activations[row]])
        assert np.allclose(evidence[row], project(torch.from_numpy(weighted)[None])[0], atol=2e-2, rtol=2e-3)
    assert np.isfinite(evidence).all(1).any()


def test_projected_features_keep_distances_and_narrow_ones_their_values() -> None:
    project = FeatureProjection(3)
    narrow = torch.rand(4, 5)
    assert np.array_equal(project(narrow)[:, :5], narrow.half().numpy())
    assert not project(narrow)[:, 5:].any()
    wide = torch.randn(40, 2000, generator=torch.Generator().manual_seed(0))
    ratio = torch.pdist(torch.from_numpy(project(wide)).float()) / torch.pdist(wide)
    assert ratio.min() > 0.7
    assert ratio.max() < 1.3
    assert np.array_equal(project(wide), FeatureProjection(3)(wide))
    assert np.isfinite(project(wide * 1e6)).all()


def test_records_describe_the_file_and_the_pixels_that_the_model_saw(
    records: pa.Table, seen: dict[str, torch.Tensor], plan: Plan
) -> None:
    index = {row["key"]: row for row in plan.load_index().table.to_pylist()}
    for row in records.to_pylist():
        for name in ("bytes", "width", "height", "format"):
            assert row[name] == index[row["key"]][name]
        red, green, blue = seen[row["key"]].double().numpy() * 0.5 + 0.5
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        assert row["brightness"] == pytest.approx(luma.mean(), abs=1e-5)
        assert row["contrast"] == pytest.approx(luma.std(), abs=1e-5)
        assert row["is_gray"] == bool((np.ptp((red, green, blue), axis=0) < 1.5 / 255).all())


def test_rows_without_a_map_are_nan_and_empty_maps_zero() -> None:
    base = {"map_height": 1, "map_width": 2}
    rows = [
        {**base, "map": [1.0, -0.5], "map_scale": 1e30},
        {**base, "map": None, "map_scale": None},
        {**base, "map": [0.0, 0.0], "map_scale": 0.0},
        {"map": [1.0, 0.0], "map_scale": 2.0, "map_height": 2, "map_width": 1},
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    maps = maps_array(table)
    assert map_size(table) == (1, 2)
    assert maps[0, 0].tolist() == pytest.approx([1e30, -5e29])
    assert np.isnan(maps[[1, 3]]).all()
    assert not maps[2].any()
    assert maps_array(table, rectified=True)[0, 0].tolist() == pytest.approx([1e30, 0])
    assert features_array(table).shape == (4, NUM_FEATURES)
    assert maps_array(table.slice(0, 0)).shape == (0, 1, 1)


@pytest.mark.parametrize("explain", [(), ("cat", "cat")])
def test_no_target_or_the_same_twice_is_refused(
    plan: Plan, checkpoint: Path, explain: tuple[str, ...]
) -> None:
    with pytest.raises(PlanError, match="expected one or several different target classes"):
        GradCamAudit(plan=plan, checkpoint=checkpoint, explain=explain)


def test_the_method_is_checked_before_anything_moves_and_part_of_the_fingerprint(
    plan: Plan, checkpoint: Path
) -> None:
    job = GradCamAudit(plan=plan, checkpoint=checkpoint)
    layered = GradCamAudit(plan=plan, checkpoint=checkpoint, method="layer-cam")
    assert layered.stages[0].fingerprint() != job.stages[0].fingerprint()
    with pytest.raises(PlanError, match="did you mean 'grad-cam'"):
        GradCamAudit(plan=plan, checkpoint=checkpoint, method="gradcam")
    values = {"plan": plan, "checkpoint": checkpoint, "method": "plugin:my_cam"}
    with pytest.raises(PlanError, match="--allow-import plugin"):
        GradCamAudit.model_validate(values, context={"allow_import": ()})
    assert (
        GradCamAudit.model_validate(values, context={"allow_import": ("plugin",)}).method == "plugin:my_cam"
    )


def test_overlays_are_drawn_on_the_original_photos_with_the_maps_as_arrays(
    plan: Plan, checkpoint: Path, tmp_path: Path
) -> None:
    from lightwell.models.audits.gradcam.overlay_stage import OverlayStage
    from lightwell.pipeline.load.samples import ImageSample
    from PIL import Image

    keys = plan.load_index().table["key"].to_pylist()[:2]
    small = {"map": [1.0, 0.0, -0.5, 0.0], "map_scale": 4.0, "map_height": 2, "map_width": 2}
    maps = pa.Table.from_pylist(
        [{"key": keys[0], **small}, {"key": keys[1], **small, "map": None, "map_scale": None}], schema=SCHEMA
    )
    stage = OverlayStage(GradCamAudit(plan=plan, checkpoint=checkpoint, overlays="maps"), "maps")
    photo = np.full((90, 120, 3), 70, np.uint8)
    with stage.open({"maps": maps}) as process:
        drawn = pa.Table.from_batches([process(ImageSample(key, photo, {}) for key in (*keys, "unknown"))])
    written = stage.write_part(drawn, 0, tmp_path)
    (row,) = written.to_pylist()
    assert row == {
        "key": keys[0], "picture": f"maps/{keys[0].replace('/', '%2F')}.png",
        "array": f"maps/{keys[0].replace('/', '%2F')}.npy", "is_photo": True,
    }  # fmt: skip
    assert sorted(stage.part_files(drawn, 0)) == sorted(
        path.relative_to(tmp_path).as_posix() for path in (tmp_path / "maps").iterdir()
    )
    evidence, picture = np.load(tmp_path / row["array"]), np.asarray(Image.open(tmp_path / row["picture"]))
    assert evidence.shape == (90, 120)
    assert (evidence[0, 0], evidence[-1, 0], evidence[0, -1]) == (1, -0.5, 0)
    assert picture.shape == photo.shape
    assert (picture[-1, -1] == 70).all()
    assert (picture[0, 0] != 70).any()


def test_an_audit_declares_its_overlays_and_refuses_other_places_for_them(
    plan: Plan, checkpoint: Path
) -> None:
    job = GradCamAudit(plan=plan, checkpoint=checkpoint, overlays="maps")
    assert {"maps/*.png", "maps/*.npy"} <= set(job.outputs)
    assert [stage.name for stage in job.stages][-1] == "overlays"
    for name in ("../maps", "/tmp/maps", "a/b", ""):
        with pytest.raises(
            PlanError, match="overlays: expected the name of a folder below the output folder"
        ):
            GradCamAudit(plan=plan, checkpoint=checkpoint, overlays=name)
