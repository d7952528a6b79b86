"""``lightwell new job`` writes a package outside of the tree that passes its own tests and runs on every engine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import warm
from commands import lightwell
from lightwell.cli.app import app
from lightwell.cli.new import write_job
from lightwell.pipeline.errors import RequestError
from lightwell.pipeline.index.build import build_index
from pictures import make_folder
from ray_jobs import files_of
from typer.testing import CliRunner

AS_MODULE = """
import os
import runpy
import sys

folder, *sys.argv = sys.argv[1:]
os.chdir(folder)
sys.path.insert(0, folder)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""What `python -m` does in a folder that is on the search path."""


def test_the_written_job_passes_its_tests_and_runs_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job has three stages, over files, images and records; it runs in a process of its own, its report in this one."""
    said = CliRunner().invoke(
        app, ["new", "job", "odd_ones", "--out", str(tmp_path / "odd")], catch_exceptions=False
    )
    assert said.stdout.startswith("wrote job.yaml, odd_ones.py, pyproject.toml, test_odd_ones.py in ")
    folder = tmp_path / "odd"

    def run(*words: str) -> str:
        done = warm.run(AS_MODULE, folder, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "3 passed" in run("pytest", "-q", "-p", "no:cacheprovider", ".")
    make_folder(folder / "photos", num_images=12)
    build_index(folder / "photos").save(folder / "index.parquet")
    run("lightwell.cli", "audit", "job.yaml", "--out", "out", "--allow-import", "odd_ones")
    stages = [path.name.rpartition("-")[0] for path in (folder / "out" / "stages").iterdir() if path.is_dir()]
    assert sorted(stages) == ["files", "images", "outliers"]
    before = files_of(folder / "out")
    monkeypatch.syspath_prepend(str(folder))
    done = lightwell("report", "out", "--allow-import", "odd_ones", cwd=folder)
    sys.modules.pop("odd_ones")
    assert done.returncode == 0, done.stderr
    assert files_of(folder / "out") == before


@pytest.mark.parametrize("name", ["Outliers", "class", "json", "lightwell", "1st", "a-b", ""])
def test_a_name_that_is_no_free_module_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match="expected a module name"):
        write_job(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nothing_is_written_into_a_folder_with_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RequestError, match="expected a new or empty folder"):
        write_job("outliers", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
