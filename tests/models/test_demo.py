"""Demo: reproducible table on every machine, valid job files."""

from __future__ import annotations

import csv
from pathlib import Path

from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.models.demo import summary_line, write_demo_jobs, write_demo_table
from lightwell.models.training.job import Classify
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.job_file import load_job


def test_keys_and_splits_of_the_demo_do_not_depend_on_the_install_path(tmp_path: Path) -> None:
    table, root = write_demo_table(tmp_path)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2624
    assert all(row["path"].startswith("images/") for row in rows)
    assert {row["label"] for row in rows} == {"defective", "functional"}
    some = tmp_path / "some.csv"
    some.write_text("".join(table.read_text().splitlines(keepends=True)[:11]))
    built = build_index(some, root=root)
    assert built.table["status"].to_pylist() == ["ok"] * 10
    assert built.table["key"].to_pylist() == [row["path"] for row in rows[:10]]


def test_the_job_files_of_the_demo_are_valid(tmp_path: Path) -> None:
    _, train, audit = write_demo_jobs(tmp_path)
    assert isinstance(load_job(train, default=""), Classify)
    assert isinstance(load_job(audit, default=""), GradCamAudit)


def test_the_demo_ends_with_a_summary_line(tmp_path: Path) -> None:
    line = summary_line({"accuracy": 0.8567, "num_labelled": 656}, 316.2, tmp_path / "report.html")
    assert line == (
        "Done in 5 minutes: test accuracy 86 % on 656 photos. "
        f"Open {tmp_path / 'report.html'} for the Grad-CAM report."
    )
