"""A run that is killed at any moment and started again writes what an uninterrupted one writes, to the byte."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from lightwell.pipeline.dataset.indexing import build_index
from lightwell.pipeline.engine.feed import LocalEngine
from lightwell.pipeline.materialize.job import Materialize
from lightwell.pipeline.plan import Plan
from lightwell.pipeline.progress import SilentConsole
from lightwell.workers.local import run_batch_job
from pictures import make_folder

PROGRAM = """
import os, random, signal, sys, threading, time
from pathlib import Path
import cv2, pyarrow, pyarrow.parquet, torch, albumentations
from lightwell.pipeline.engine.feed import LocalEngine
from lightwell.pipeline.materialize.job import Materialize
from lightwell.pipeline.plan import Plan
from lightwell.pipeline.progress import SilentConsole
from lightwell.workers.local import run_batch_job

plan, folder, form, seed, longest = sys.argv[1:]
longest = float(longest)
job = Materialize(plan=Plan.load(plan), augment=True, format=form, shard_images=4)
chance = random.Random(int(seed))
while True:  # a child for each try: the imports are paid once
    child = os.fork()
    if child == 0:
        run_batch_job(job, LocalEngine(num_threads=2), Path(folder), SilentConsole())
        os._exit(0)
    time.sleep(chance.uniform(0, longest))
    longest *= 1.2  # on a busy machine a run still comes to its end
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print("killed" if os.WIFSIGNALED(status) else "done", len(list(Path(folder, "parts").glob("part-*"))), flush=True)
    if not os.WIFSIGNALED(status):
        break
"""


def files_of(out: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in out.iterdir()
        if path.is_file() and path.name != "index.parquet"
    }


@pytest.mark.parametrize("form", ["tar", "parquet"])
def test_a_killed_run_ends_the_same_to_the_byte(form: str, tmp_path: Path) -> None:
    photos = make_folder(tmp_path / "photos", num_images=60)
    damaged = photos / "dog" / "003.jpg"
    damaged.write_bytes(damaged.read_bytes()[:400])
    build_index(photos).save(tmp_path / "index.parquet")
    plan = Plan.model_validate(
        {
            "index": tmp_path / "index.parquet",
            "preprocess": [{"Resize": {"height": 64, "width": 64}}],
            "augment": ["HorizontalFlip", {"GaussNoise": {"p": 1.0}}],
            "batch": {"size": 2},
        }
    )
    plan.save(tmp_path / "plan.yaml")
    job = Materialize(plan=plan, augment=True, format=form, shard_images=4)  # type: ignore[arg-type]
    started = time.monotonic()
    run_batch_job(job, LocalEngine(num_threads=2), tmp_path / "whole", SilentConsole())
    longest = 1.3 * (time.monotonic() - started)
    words = [sys.executable, "-c", PROGRAM, tmp_path / "plan.yaml", tmp_path / "out", form, 1, longest]
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=100, check=True
    )
    lines = done.stdout.split("\n")[:-1]
    assert lines[-1].startswith("done")
    assert any(line.startswith("killed") and not line.endswith(" 0") for line in lines), lines
    whole, again = files_of(tmp_path / "whole"), files_of(tmp_path / "out")
    assert whole.keys() == again.keys()
    assert [name for name in whole if whole[name] != again[name]] == []
    indexes = [pq.read_table(tmp_path / name / "index.parquet") for name in ("whole", "out")]
    of_the_place = [name for name in ("uri", "mtime_ns", "mask") if name in indexes[0].column_names]
    first, second = (index.drop_columns(of_the_place) for index in indexes)
    assert first.equals(second)
