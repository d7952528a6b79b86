"""Second opinions of an audit: they see the mark that the network has learned, and are refused without Captum."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from lightwell import LocalEngine, Plan, run_batch_job
from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.models.audits.gradcam.opinion_stage import OPINION_SCHEMA
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.jobs.progress import SilentConsole
from shortcut import MARK


def test_other_methods_see_the_planted_mark_and_their_agreement_is_stated(
    marked: tuple[Plan, Path], tmp_path: Path
) -> None:
    plan, checkpoint = marked
    job = GradCamAudit(
        plan=plan,
        checkpoint=checkpoint,
        gallery=4,
        trust_images=0,
        second_opinions=("integrated_gradients", "occlusion", "occlusion"),
    )
    findings = run_batch_job(job, LocalEngine(num_threads=1), tmp_path, SilentConsole())
    summary = {each["method"]: each for each in findings["second_opinions"]}
    assert (
        json.loads((tmp_path / "findings.json").read_text())["second_opinions"] == findings["second_opinions"]
    )
    assert set(summary) == {"integrated_gradients", "occlusion"}
    assert {each["num_images"] for each in summary.values()} == {4}
    assert summary["integrated_gradients"]["forward_passes"] >= 32
    page = (tmp_path / "report.html").read_text()
    shown = re.findall(r'<details class="opinions">(.*?)</details>', page, re.DOTALL)
    assert len(shown) == 4
    for panels in shown:
        assert re.findall(r'title="(\w[\w ]+), rank correlation -?\d\.\d\d with the map"', panels) == [
            "Integrated gradients",
            "Occlusion",
        ]
    records = pq.read_table(tmp_path / "second_opinions.parquet")
    assert records.schema.equals(OPINION_SCHEMA)
    for row in records.to_pylist():
        if row["method"] == "occlusion" and row["key"].startswith("marked"):
            attribution = np.asarray(row["attribution"], np.float32).reshape(28, 28)
            marked_cells = round(MARK / 32 * 28)
            y, x = np.unravel_index(np.abs(attribution).argmax(), (28, 28))
            assert max(y, x) <= marked_cells + 2, "a window reaches two cells further"


def test_an_audit_without_second_opinions_has_no_stage_for_them(marked: tuple[Plan, Path]) -> None:
    plan, checkpoint = marked
    job = GradCamAudit(plan=plan, checkpoint=checkpoint)
    assert "opinions" not in [stage.name for stage in job.stages]
    assert "second_opinions.parquet" not in job.outputs
    more = job.model_copy(update={"second_opinions": ("lime",)})
    assert [a.fingerprint() for a in job.stages] == [b.fingerprint() for b in more.stages][: len(job.stages)]


def test_unknown_methods_and_a_missing_captum_are_refused(
    marked: tuple[Plan, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, checkpoint = marked
    with pytest.raises(PlanError, match="'shap'"):
        GradCamAudit(plan=plan, checkpoint=checkpoint, second_opinions=("shap",))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PlanError, match=r"expected Captum.*lightwell\[explain\]"):
        GradCamAudit(plan=plan, checkpoint=checkpoint, second_opinions=("lime",))
