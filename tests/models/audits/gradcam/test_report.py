"""HTML report: self-contained, escapes all names, opens in a browser."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import open_page
from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.models.audits.gradcam.report.charts import line_chart, round_ticks
from lightwell.models.audits.gradcam.report.class_sections import MAX_SECTIONS
from lightwell.models.audits.gradcam.report.summary import lowest_recall
from lightwell.models.report.curves import read_curves
from lightwell.models.report.html import script_hash
from lightwell.models.zoo.build import ModelSpec
from lightwell.pipeline.errors import OutputError, PlanError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_batch_job
from pictures import make_folder

EVIL = "<script>alert(1)<"
"""Without a slash, to be a valid file name."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Mapping[str, Any], Path]:
    """Report of an audit in which names of file, class and curve, title and credit contain markup."""
    root = tmp_path_factory.mktemp("report")
    photos = make_folder(root / "photos", num_images=8, classes=("<b>cat", "dog"))
    first = photos / "dog" / "001.jpg"
    first.rename(first.with_name(EVIL + ".jpg"))
    broken = photos / "dog" / "003.jpg"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    broken.rename(broken.with_name("broken" + EVIL + ".jpg"))
    build_index(photos, fractions={"test": 1.0}).save(root / "index.parquet")
    plan = Plan.model_validate(
        {
            "index": root / "index.parquet",
            "preprocess": [{"Resize": {"height": 64, "width": 64}}],
            "batch": {"size": 4},
        }
    )
    metrics = root / "metrics.jsonl"
    metrics.write_text("".join(json.dumps({"epoch": e, f"{EVIL} loss": 2.0 - e}) + "\n" for e in range(3)))
    job = GradCamAudit(
        plan=plan,
        model=ModelSpec(name="squeezenet1_1", weights="none", num_classes=2),
        untrained="allow",
        class_names="index",
        training_metrics=metrics,
        gallery=9,
        title=f"Audit {EVIL}",
        credit=f"Pictures: {EVIL}",
    )
    torch.manual_seed(0)
    findings = run_batch_job(job, LocalEngine(num_threads=1), root / "out", SilentConsole())
    path = root / "out" / "report.html"
    return path.read_text(), findings, path


def test_all_names_are_escaped(report: tuple[str, Mapping[str, Any], Path]) -> None:
    page, _, _ = report
    assert page.count("<script") == 1, "that of the page"
    assert "<b>cat" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;") >= 6  # title twice, credit, curve, two files
    assert "&lt;b&gt;cat" in page


def test_the_page_has_no_external_resources(report: tuple[str, Mapping[str, Any], Path]) -> None:
    page, _, _ = report
    loaded = re.findall(
        r"""(?:src|href|srcset|data|action)\s*=\s*["']?([^"'\s>]+)""", page.partition("<script>")[0]
    )
    assert loaded, "the gallery has pictures"
    assert all(each.startswith(("data:image/", "#")) for each in loaded)
    assert not re.search(r"https?://|@import|url\(|<link|<iframe|<object", page)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src '{script_hash(script)}'" in html.unescape(policy), "no other script runs"


def test_links_within_the_page_lead_somewhere(report: tuple[str, Mapping[str, Any], Path]) -> None:
    page, _, _ = report
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r'\bid="([^"]+)"', page))


def test_the_page_shows_every_image_and_the_unusable_file(
    report: tuple[str, Mapping[str, Any], Path],
) -> None:
    page, findings, _ = report
    assert page.count("<figcaption>model input") == findings["num_images"] == 7
    assert "Unusable files" in page
    assert "broken&lt;script&gt;" in page


def test_a_browser_shows_the_summary_cards(
    report: tuple[str, Mapping[str, Any], Path], chromium: str, tmp_path: Path
) -> None:
    _, findings, path = report
    shown = open_page(chromium, path, tmp_path).stdout
    figures = dict(re.findall(r'<div class="figure[^>]*><span>([^<]+)</span><b>([^<]+)</b>', shown))
    assert figures["Images"] == "7"
    assert figures["Accuracy"] == f"{100 * findings['accuracy']:.1f} %"
    assert figures["Balanced accuracy"] == f"{100 * findings['balanced_accuracy']:.1f} %"
    assert figures["AUROC"] == f"{findings['auroc']:.3f}"
    assert figures["Border mass"] == f"{100 * findings['border_mass']['mean']:.1f} %"
    assert figures["Quarantined"] == "1"


def test_a_report_of_many_classes_lists_repeated_errors_instead_of_a_matrix(tmp_path: Path) -> None:
    classes = tuple(f"kind {number:02}" for number in range(24))
    photos = make_folder(tmp_path / "photos", num_images=72, classes=classes)
    build_index(photos, fractions={"test": 1.0}).save(tmp_path / "index.parquet")
    plan = Plan.model_validate(
        {"index": tmp_path / "index.parquet", "preprocess": [{"Resize": {"height": 64, "width": 64}}]}
    )
    job = GradCamAudit(
        untrained="allow",
        class_names="index",
        plan=plan,
        model=ModelSpec(name="squeezenet1_1", weights="none", num_classes=24),
        gallery=3,
    )
    torch.manual_seed(0)
    findings = run_batch_job(job, LocalEngine(num_threads=1), tmp_path / "out", SilentConsole())
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<table class="confusion">' not in page
    repeated = [pair for pair in findings["most_confused"] if pair["count"] > 1]
    assert repeated, "an untrained model says the same of all"
    told = re.findall(r"<tr><td>(kind \d\d)</td><td>(kind \d\d)</td>", page)
    assert told == [(pair["label"], pair["prediction"]) for pair in repeated]
    assert "All images" in page
    assert page.count('alt="Mean map') <= 2 * (MAX_SECTIONS + 1)


def test_the_weakest_classes_have_at_least_two_images_and_an_error() -> None:
    entries = [
        {"class": "one image", "num_images": 1, "recall": 0.0},
        {"class": "half", "num_images": 4, "recall": 0.5},
        {"class": "never", "num_images": 2, "recall": 0.0},
        {"class": "always", "num_images": 9, "recall": 1.0},
        {"class": "no label", "num_images": 0, "recall": None},
    ]
    assert [entry["class"] for entry in lowest_recall({"per_class": entries})] == ["never", "half"]


def test_curves_of_a_split_are_named_after_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [
        {"epoch": 0, "split": "val", "loss": 1.5, "auroc": 0.5, "notes": {}},
        {"epoch": 0, "train_loss": 2},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_curves(path) == {
        "Loss": {"val loss": [(0, 1.5)], "train loss": [(0, 2)]},
        "Accuracy": {"val auroc": [(0, 0.5)]},
    }


def test_a_chart_of_one_point_is_drawn() -> None:
    assert "nan" not in line_chart({"loss": [(0, 1.0)]}, "Loss")


def test_a_chart_counts_epochs_from_one_as_the_terminal_does() -> None:
    drawn = line_chart({"loss": [(0, 1.0), (1, 0.5)]}, "Loss")
    assert re.findall(r'text-anchor="middle">(\d+)<', drawn) == ["1", "2"]


def test_ticks_are_round() -> None:
    assert round_ticks(0.37, 0.77) == pytest.approx([0.4, 0.5, 0.6, 0.7])


def test_a_missing_metrics_file_is_a_plan_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"expected a readable metrics\.jsonl.*give the file next to"):
        read_curves(tmp_path / "none.jsonl")


def test_an_unwritable_output_folder_is_reported_before_any_work(
    report: tuple[str, Mapping[str, Any], Path],
) -> None:
    _, _, path = report
    plan = Plan(index=path.parent.parent / "index.parquet")
    job = GradCamAudit(plan=plan, model=ModelSpec(name="squeezenet1_1", weights="none"))
    with pytest.raises(OutputError, match=r"expected a folder that can be written.*choose another"):
        run_batch_job(job, LocalEngine(), path / "below", SilentConsole())
