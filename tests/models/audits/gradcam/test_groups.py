"""Columns of the indexed table are searched for slices; unknown ones are refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from lightwell import GradCamAudit, ModelSpec, Plan, build_index
from lightwell.models.audits.findings.finding import read_findings
from lightwell.models.audits.gradcam.suspect_stage import SuspectStage, group_array
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.jobs.stages import stage_keys
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_batch_job
from pictures import make_picture, write_picture

NUM_IMAGES = 120


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Images of two classes from two cameras, a third of them from the camera ``old``."""
    root = tmp_path_factory.mktemp("cameras")
    lines = ["path,label,camera,split"]
    for number in range(NUM_IMAGES):
        write_picture(root / f"{number:03}.png", make_picture(number, height=32, width=32))
        lines.append(
            f"{number:03}.png,{('cat', 'dog')[number % 2]},{('old', 'new', 'new')[number // 2 % 3]},test"
        )
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    build_index(root / "table.csv").save(root / "index.parquet")
    normalize = {"Normalize": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    return Plan.model_validate(
        {"index": root / "index.parquet", "preprocess": [normalize], "batch": {"size": 32}}
    )


def audit_of(plan: Plan, **keys: object) -> GradCamAudit:
    model = ModelSpec(name="timm:test_resnet", weights="none", num_classes=2)
    return GradCamAudit.model_validate(
        {"plan": plan, "model": model, "untrained": "allow", "class_names": "index", **keys}
    )


@pytest.fixture(scope="module")
def maps(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Records in which images of the old camera are predicted wrongly and the others rightly."""
    import pyarrow.parquet as pq

    out = tmp_path_factory.mktemp("maps")
    run_batch_job(audit_of(plan, trust_images=0, interventions=0, gallery=0), LocalEngine(num_threads=1), out)
    records = pq.read_table(out / "records.parquet")
    is_old = np.array([int(str(key)[:3]) // 2 % 3 == 0 for key in records["key"].to_pylist()])
    labels = records["label"].to_numpy()
    place = records.schema.get_field_index("prediction")
    return records.set_column(
        place, records.schema.field(place), pa.array(np.where(is_old, 1 - labels, labels))
    )


def search(audit: GradCamAudit, maps: pa.Table) -> list[str]:
    with SuspectStage(audit).open({}) as process:
        found = read_findings(pa.Table.from_batches([process(maps)]))
    return [each.group or "" for each in found if each.kind == "slice"]


def test_errors_of_one_camera_are_found_if_its_column_is_named(plan: Plan, maps: pa.Table) -> None:
    assert "camera is old" in search(audit_of(plan, groups=["camera"]), maps)
    assert not any("camera" in group for group in search(audit_of(plan), maps))


def test_naming_a_column_searches_again_and_computes_no_map_again(plan: Plan) -> None:
    without, named = stage_keys(audit_of(plan).stages), stage_keys(audit_of(plan, groups=["camera"]).stages)
    assert named["maps"] == without["maps"]
    assert named["suspects"] != without["suspects"]


def test_an_unknown_column_is_refused_before_anything_runs(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(
        PlanError, match=r"groups: expected columns .* got 'site' and an index with \['camera'\]"
    ):
        run_batch_job(audit_of(plan, groups=["site"]), LocalEngine(num_threads=1), tmp_path / "out")
    assert not list(tmp_path.rglob("*.parquet"))


def test_cells_are_numbers_only_where_all_are_plain_numbers() -> None:
    assert group_array(["1.5", None, "2"]).tolist() == pytest.approx([1.5, np.nan, 2.0], nan_ok=True)
    for texts in (["007", "8"], ["a", "1"], ["inf", "1"]):
        assert group_array([*texts, None]).tolist() == [*texts, "unknown"]
