"""Time limit: slow files are quarantined, and one that never ends stops the run, on every backend."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import sleepy
from lightwell.pipeline.errors import SampleTimeoutError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.monitor import watchdog as watch
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from patience import HANG_S
from pictures import write_picture

WAYS = ["opencv", "cached", "dali"]


def sleepy_feed(index: Path, way: str, options: dict[str, Any], **errors: Any) -> Any:
    cache = {"dir": index.parent / "cache"} if way == "cached" else None
    plan = Plan.model_validate(
        {
            "index": index,
            "preprocess": [A.Resize(32, 32)],
            "augment": [sleepy.Sleepy(**options)],
            "batch": {"size": 8},
            "errors": errors,
            "cache": cache,
        }
    )
    backend = "dali" if way == "dali" else "opencv"
    return LocalEngine(num_threads=1, backend=backend).feed(plan, View(augment=True, num_epochs=2))


@pytest.mark.fault("a file that takes too long")
@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_takes_too_long_is_quarantined_and_not_retried(tmp_path: Path, way: str) -> None:
    for number in range(4):
        picture = np.full((32, 32, 3), sleepy.SLOW_PIXEL if number == 2 else number, np.uint8)
        write_picture(tmp_path / "set" / f"{number}.png", picture)
    build_index(tmp_path / "set").save(tmp_path / "i.parquet")
    feed = sleepy_feed(tmp_path / "i.parquet", way, {"seconds": 2.5}, max_seconds_per_file=2.0)
    with feed:
        batches = list(feed)
    assert [len(batch) for batch in batches] == [4, 4]
    assert [(e["key"], e["step"], e["epoch"]) for e in feed.quarantine] == [
        ("2.png", "time", 0),
        ("2.png", "time", 1),
    ]
    assert "more than max_seconds_per_file: 2" in feed.quarantine[0]["reason"]
    assert "not retried" in feed.quarantine[1]["reason"]


@pytest.mark.fault("a file that never ends: the run stops and names it")
@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_never_ends_stops_the_run_and_is_named(
    index_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(watch, "POLL_S", 0.05)
    sleepy.RELEASE.clear()
    feed = sleepy_feed(index_path, way, {"endless": True}, max_seconds_per_file=2.0)
    try:
        with (
            pytest.raises(
                SampleTimeoutError, match=r"policy of 'cat/000.jpg': expected to finish within 4 s"
            ),
            feed,
        ):
            list(feed)
    finally:
        sleepy.RELEASE.set()
    for thread in threading.enumerate():
        if thread.name.startswith("lightwell"):
            thread.join(HANG_S)


def test_files_decoded_together_share_one_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL_S", 0.01)
    noted = watch.Watchdog(0.05)
    release, at_work = threading.Event(), threading.Event()

    def work() -> None:
        with noted.track("decode", "first.jpg", 32):
            at_work.set()
            release.wait(60)

    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(work)
        at_work.wait(60)
        try:
            with pytest.raises(
                SampleTimeoutError,
                match=r"decode of 32 files, the first of them 'first.jpg': expected to finish within 0.1 s",
            ):
                noted.wait_for(future)
        finally:
            release.set()


def test_the_command_ends_even_if_a_thread_does_not(tmp_path: Path) -> None:
    code = (
        "import threading, lightwell.cli.app as cli\n"
        "from lightwell.pipeline.errors import SampleTimeoutError\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "def app(): raise SampleTimeoutError('decode of x never ended')\n"
        "cli.app = app\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert (done.returncode, done.stderr) == (1, "error: decode of x never ended\n")
