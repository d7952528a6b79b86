"""Stages of the audit: what is done is not done again, and the report needs neither images nor model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest
from lightwell import LocalEngine, Plan, run_batch_job
from lightwell.cli.app import app
from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.models.audits.gradcam.map_stage import MapStage
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.jobs.stages import stage_keys
from lightwell.testing import assert_batch_job
from ray_jobs import files_of
from typer.testing import CliRunner


class Unopened(GradCamAudit):
    """An audit that must not open its model."""

    @property
    def stages(self) -> Any:
        maps, *others = super().stages
        return UnopenedStage(maps.audit), *others


class UnopenedStage(MapStage):
    """A stage that must not open its model."""

    def open(self, inputs: Any) -> NoReturn:
        raise AssertionError("opened")


Unopened.__name__ = GradCamAudit.__name__
"""Same name, so that it accepts the same folder."""


def maps_key(job: GradCamAudit) -> str:
    """Return the name under which the maps are kept."""
    return stage_keys(job.stages)["maps"]


def test_the_fingerprint_excludes_keys_of_the_report(plan: Plan, checkpoint: Path) -> None:
    job = GradCamAudit(plan=plan, checkpoint=checkpoint)
    same = job.model_copy(update={"title": "another", "gallery": 1, "credit": "me"})
    assert maps_key(same) == maps_key(job)
    for change in ({"class_map": {"cat": 1, "dog": 0}}, {"explain": "label"}, {"target_layer": "layer3"}):
        assert maps_key(job.model_copy(update=change)) != maps_key(job)


def test_another_title_rebuilds_the_report_from_existing_records(
    plan: Plan, checkpoint: Path, tmp_path: Path
) -> None:
    job = GradCamAudit(plan=plan, checkpoint=checkpoint, gallery=2)
    first = run(job, tmp_path)
    (tmp_path / "findings.json").unlink()
    titled = Unopened(plan=plan, checkpoint=checkpoint, gallery=4, title="A second look", credit="me")
    second = run(titled, tmp_path)
    assert second == first | {"title": "A second look", "credit": "me"}
    assert json.loads((tmp_path / "findings.json").read_text()) == second
    assert "A second look" in (tmp_path / "report.html").read_text()
    with pytest.raises(AssertionError, match="opened"):
        run(titled.model_copy(update={"explain": "dog"}), tmp_path)


def run(job: GradCamAudit, out: Path) -> dict[str, object]:
    return dict(run_batch_job(job, LocalEngine(num_threads=1), out, SilentConsole()))


def test_the_audit_keeps_the_contract_of_batch_jobs(plan: Plan, checkpoint: Path, tmp_path: Path) -> None:
    job = GradCamAudit(plan=plan, checkpoint=checkpoint, gallery=3)
    assert_batch_job(job, LocalEngine(num_threads=1), tmp_path)


def test_lightwell_report_writes_the_report_again_without_images_and_model(
    plan: Plan, checkpoint: Path, tmp_path: Path
) -> None:
    """The report equals the first to the byte, and takes another title."""
    for path in (plan.index.parent / "photos", plan.index, checkpoint, checkpoint.parent / "metrics.jsonl"):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    moved = tmp_path / "index.parquet"
    from lightwell import build_index

    build_index(tmp_path / "photos", fractions={"test": 1.0}).save(moved)
    plan.model_copy(update={"index": moved}).save(tmp_path / "plan.yaml")
    (tmp_path / "audit.yaml").write_text("plan: plan.yaml\ncheckpoint: best.safetensors\ngallery: 4\n")
    out = tmp_path / "out"
    first = CliRunner().invoke(
        app, ["audit", str(tmp_path / "audit.yaml"), "--out", str(out), "--json"], catch_exceptions=False
    )
    assert first.exit_code == 0
    expected = files_of(out)
    shutil.rmtree(tmp_path / "photos")
    for name in ("index.parquet", "plan.yaml", "audit.yaml", "best.safetensors", "metrics.jsonl"):
        (tmp_path / name).unlink()
    (out / "report.html").unlink()
    again = CliRunner().invoke(app, ["report", str(out), "--json"], catch_exceptions=False)
    assert again.exit_code == 0
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert files_of(out) == expected
    said = CliRunner().invoke(app, ["report", str(out), "--title", "Second <review>"], catch_exceptions=False)
    assert said.stdout.startswith(f"wrote the results of GradCamAudit in {out} again, in ")
    assert "Second &lt;review&gt;" in (out / "report.html").read_text()
    assert json.loads((out / "findings.json").read_text()) == {
        **json.loads(first.stdout),
        "title": "Second <review>",
    }
