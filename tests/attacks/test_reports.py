"""Attacks on ``lightwell report``: a finished run from a stranger runs no code, and leads out of its folder nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from lightwell import LocalEngine, Plan, PlanError, RequestError, run_batch_job
from lightwell.pipeline.outputs.manifest import MANIFEST_NAME
from lightwell.workers.local import rewrite_results
from lightwell.workers.record_store import PART_KEY
from lightwell.workers.saved_job import load_saved_job
from stage_jobs import Chain, plan_in

ENGINE = LocalEngine(num_threads=1)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return plan_in(tmp_path_factory.mktemp("theirs"), num_images=9)


@pytest.fixture
def out(plan: Plan, tmp_path: Path) -> Path:
    """A finished run."""
    run_batch_job(
        Chain(plan), ENGINE, tmp_path / "out", job_text="job: os:system\nplan: {index: index.parquet}\n"
    )
    return tmp_path / "out"


def test_a_saved_job_of_a_module_that_is_not_allowed_is_not_imported(out: Path) -> None:
    """A stranger's ``stages/job.yaml`` names a function of the standard library: it must not be imported."""
    with pytest.raises(PlanError, match=r"os.*--allow-import"):
        load_saved_job(str(out))


def test_a_saved_job_that_is_no_batch_job_is_refused(out: Path) -> None:
    """A saved job of another kind must be refused, not run."""
    (out / "stages" / "job.yaml").write_text("job: classify\nplan: {index: index.parquet}\n")
    with pytest.raises(PlanError, match="which `lightwell train` runs"):
        load_saved_job(str(out))


def test_a_saved_job_with_objects_in_its_yaml_is_refused(out: Path) -> None:
    """YAML that builds objects must run nothing."""
    (out / "stages" / "job.yaml").write_text("!!python/object/apply:os.system [touch /tmp/owned]\n")
    with pytest.raises(PlanError):
        load_saved_job(str(out))


def test_a_folder_without_a_saved_job_is_refused(tmp_path: Path) -> None:
    """A folder that no run has written must be refused with a cure."""
    with pytest.raises(RequestError, match=r"without stages/job\.yaml; give the --out of the run"):
        load_saved_job(str(tmp_path))


@pytest.mark.parametrize("key", ["../../etc", "sizes-../../../x", "/etc/passwd", "sizes-0123456789ABCDEF"])
def test_a_manifest_whose_stages_lead_elsewhere_is_refused(plan: Plan, out: Path, key: str) -> None:
    """Names of stages with ``..`` or a root must not lead a read or a write out of the folder."""
    content = json.loads((out / MANIFEST_NAME).read_text())
    content["stages"]["sizes"] = key
    (out / MANIFEST_NAME).write_text(json.dumps(content))
    with pytest.raises(RequestError, match="is damaged"):
        rewrite_results(Chain(plan), ENGINE, out)


@pytest.mark.parametrize("name", ["../../photos/cat/000.jpg", "/etc/passwd"])
def test_records_that_name_files_elsewhere_are_not_used(plan: Plan, out: Path, name: str) -> None:
    """Records that list files outside of the folder must not be trusted, nor those files be read."""
    (path,) = out.glob("stages/sizes-*/records.parquet")
    table = pq.read_table(path)
    note = json.loads(table.schema.metadata[PART_KEY]) | {"files": {name: [1, "x"]}}
    path.unlink()
    pq.write_table(table.replace_schema_metadata({PART_KEY: json.dumps(note).encode()}), path)
    with pytest.raises(RequestError, match="got none, or damaged ones"):
        rewrite_results(Chain(plan), ENGINE, out)
