"""A run that is killed at any moment and started again writes what an uninterrupted one writes, to the byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import warm
from lightwell.pipeline.export.materialize import Materialize
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.outputs.manifest import LOCK_NAME, MANIFEST_NAME, Manifest
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_batch_job
from pictures import make_folder

PROGRAM = """
import os, random, shutil, signal, sys, time
from pathlib import Path
import cv2, pyarrow, pyarrow.parquet, torch, albumentations
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.pipeline.export.materialize import Materialize
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.workers.local import run_batch_job

plan, folder, form, seed = sys.argv[1:]
job = Materialize(plan=Plan.load(plan), augment=True, format=form, shard_images=4)
chance = random.Random(int(seed))

def num_parts():
    return len(list(Path(folder).glob("_lightwell/stages/*/parts/part-*")))

def ended(child):
    return os.waitpid(child, os.WNOHANG)[0] != 0

hits = 0
for number in range(40):  # a child for each try: the imports are paid once
    child = os.fork()
    if child == 0:
        run_batch_job(job, LocalEngine(num_threads=2), Path(folder), SilentConsole())
        os._exit(0)
    if hits == 6:
        os.waitpid(child, 0)
        print("done", flush=True)
        break
    enough = num_parts() + chance.randint(0, 3)  # far on a slow machine too, and then at any moment
    while not (over := ended(child)) and num_parts() < enough:
        time.sleep(0.001)
    time.sleep(0 if over else chance.uniform(0, 0.03))
    if not over and not ended(child):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        hits += num_parts() > 0
        print("killed", num_parts(), flush=True)
    elif hits:
        print("done", flush=True)
        break
    else:  # too fast for us: once more from the beginning
        shutil.rmtree(folder)
"""


def files_of(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name not in (MANIFEST_NAME, LOCK_NAME)
    }


@pytest.mark.fault("SIGKILL again and again while materializing")
@pytest.mark.parametrize("form", ["tar", "parquet"])
def test_a_killed_run_ends_the_same_to_the_byte(form: str, tmp_path: Path) -> None:
    photos = make_folder(tmp_path / "photos", num_images=60)
    build_index(photos).save(tmp_path / "index.parquet")
    for name in ("dog/003.jpg", "cat/040.jpg"):
        damaged = photos / name
        damaged.write_bytes(damaged.read_bytes()[:400])
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
    run_batch_job(job, LocalEngine(num_threads=2), tmp_path / "whole", SilentConsole())
    done = warm.run(PROGRAM, tmp_path / "plan.yaml", tmp_path / "out", form, 1)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")[:-1]
    assert lines[-1] == "done", lines
    assert any(line.startswith("killed") and not line.endswith(" 0") for line in lines), lines
    whole, again = files_of(tmp_path / "whole"), files_of(tmp_path / "out")
    assert whole.keys() == again.keys()
    listed = [Manifest.load(tmp_path / name) for name in ("whole", "out")]
    assert listed[0].files.keys() == listed[1].files.keys() == whole.keys()
    assert [name for name in whole if whole[name] != again[name]] == [], lines
    assert json.loads(whole["_lightwell/counts.json"])["replaced"] == 2
    assert whole["_lightwell/quarantine.jsonl"].count(b"\n") == 2
