"""A whole audit of a network that has learned a planted mark: it is found, confirmed and described."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from lightwell import LocalEngine, Plan, run_batch_job
from lightwell.models.audits.findings.finding import SCHEMA, Finding, read_findings
from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.pipeline.jobs.progress import SilentConsole


@pytest.fixture(scope="module")
def out(marked: tuple[Plan, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of an audit of the marked images."""
    plan, checkpoint = marked
    folder = tmp_path_factory.mktemp("findings")
    job = GradCamAudit(plan=plan, checkpoint=checkpoint, gallery=3, trust_images=4, target_layer="layer1")
    run_batch_job(job, LocalEngine(num_threads=1), folder, SilentConsole())
    return folder


@pytest.fixture(scope="module")
def found(out: Path) -> tuple[Finding, ...]:
    return read_findings(pq.read_table(out / "findings.parquet"))


def test_the_planted_mark_is_found_where_it_is_and_confirmed(found: tuple[Finding, ...]) -> None:
    finding = found[0]
    assert (finding.kind, finding.class_name, finding.severity) == ("region", "marked", "high")
    assert finding.confirmation.status == "confirmed"
    assert finding.region is not None
    y, x = np.unravel_index(finding.region.weights.argmax(), finding.region.weights.shape)
    assert (y, x) == (0, 0)
    assert "upper left" in finding.sentence
    assert "the probability of marked changes by -" in finding.sentence
    assert all(key.startswith("marked/") for key in finding.keys)
    assert all(key.startswith("plain/") for key in finding.other_keys)


def test_parquet_json_and_report_have_the_same_findings(out: Path, found: tuple[Finding, ...]) -> None:
    assert pq.read_table(out / "findings.parquet").schema.equals(SCHEMA)
    listed = json.loads((out / "findings.json").read_text())["findings"]
    assert tuple(map(Finding.from_dict, listed)) == found
    page = (out / "report.html").read_text()
    assert found[0].sentence in page


def test_findings_do_not_depend_on_batches(
    marked: tuple[Plan, Path], out: Path, found: tuple[Finding, ...], tmp_path: Path
) -> None:
    plan, checkpoint = marked
    smaller = plan.model_copy(update={"batch": plan.batch.model_copy(update={"size": 5})})
    job = GradCamAudit(plan=smaller, checkpoint=checkpoint, gallery=0, trust_images=2, target_layer="layer1")
    run_batch_job(job, LocalEngine(num_threads=1), tmp_path, SilentConsole())
    other = read_findings(pq.read_table(tmp_path / "findings.parquet"))
    assert [(each.id, each.keys, each.other_keys, each.severity) for each in other] == [
        (each.id, each.keys, each.other_keys, each.severity) for each in found
    ]
