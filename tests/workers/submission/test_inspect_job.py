"""A submitted audit of a dataset ships its job file; a source without one is on the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from lightwell.cli.app import app
from lightwell.cli.submit import check_command
from lightwell.pipeline.errors import RequestError
from lightwell.pipeline.index.build import build_index
from lightwell.workers.submission.working_dir import WorkingDir
from pictures import make_folder


def test_a_job_file_of_inspect_is_shipped_and_other_sources_are_on_the_cluster(tmp_path: Path) -> None:
    build_index(make_folder(tmp_path / "photos", num_images=4)).save(tmp_path / "index.parquet")
    (tmp_path / "plan.yaml").write_text("index: index.parquet\n")
    job = tmp_path / "inspect.yaml"
    job.write_text("plan: plan.yaml\ntitle: Photos\n")
    root = typer.main.get_command(app)
    command = check_command(root, ["inspect", str(job), "--out", "/out", "--engine", "ray"])
    files = WorkingDir.of(command.documents, Path.cwd()).files
    assert set(map(str, files)) == {"inspect.yaml", "plan.yaml", "index.parquet"}
    assert check_command(root, ["inspect", "/photos", "--out", "/out"]).documents == ()
    with pytest.raises(RequestError, match="source: expected an absolute path"):
        check_command(root, ["inspect", "photos", "--out", "/out"])
