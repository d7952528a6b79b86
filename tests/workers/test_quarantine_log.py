"""The list of bad files while a job runs: on disk before it ends, however it ends, and with all feeds of a training."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import warm
from clusters import wait_until
from lightwell.pipeline.errors import OutputError, RunError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.monitor.quarantine import read_quarantine
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers import quarantine_log as ledger
from lightwell.workers.local import run_batch_job, run_training_job
from lightwell.workers.quarantine_log import QuarantineLog
from patience import HANG_S
from pictures import make_folder

ENGINE = LocalEngine(num_threads=1)
EVERYTHING = View()
TRAINING = View(split="train", shuffle=True, num_epochs=2)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Twelve pictures in two splits; the first and the seventh of each class have gone."""
    photos = tmp_path / "photos"
    for split in ("train", "val"):
        make_folder(photos / split, num_images=6)
    build_index(photos).save(tmp_path / "index.parquet")
    for name in ("train/cat/000.jpg", "val/cat/002.jpg", "val/dog/003.jpg"):
        (photos / name).unlink()
    return plan_of(tmp_path)


def plan_of(folder: Path, **errors: Any) -> Plan:
    policy = [{"Resize": {"height": 16, "width": 16}}]
    return Plan.model_validate(
        {"index": folder / "index.parquet", "preprocess": policy, "batch": {"size": 2}, "errors": errors}
    )


@dataclass(frozen=True)
class Count:
    """A batch job that counts."""

    plan: Plan
    view: View = EVERYTHING
    schema = pa.schema({"key": pa.string()})

    def fingerprint(self) -> str:
        return self.plan.fingerprint()

    @contextmanager
    def open(self) -> Iterator[Any]:
        yield lambda batch: pa.record_batch({"key": batch.keys}, schema=self.schema)

    def finish(self, records: Any, context: Any) -> dict[str, Any]:
        return dict(context.counts)


@dataclass(frozen=True)
class Learn:
    """A training job that looks at its validation split after every epoch."""

    plan: Plan
    view: View = TRAINING

    def run(self, feed: Any, context: Any) -> dict[str, Any]:
        images = sum(len(batch) for batch in feed)
        for _ in range(2):
            with context.engine.feed(self.plan, View(split="val")) as validation:
                images += sum(len(batch) for batch in validation)
        return {"images": images}


def keys_in(out: Path) -> list[str]:
    return sorted({entry["key"] for entry in read_quarantine(out / "quarantine.jsonl")})


@pytest.mark.parametrize("rule", ["replace", "skip"])
def test_a_batch_job_accounts_for_every_file(plan: Plan, tmp_path: Path, rule: str) -> None:
    plan = plan_of(tmp_path, on_error=rule)
    counts = run_batch_job(Count(plan), ENGINE, tmp_path / "out", SilentConsole(), part_images=4)
    assert keys_in(tmp_path / "out") == ["train/cat/000.jpg", "val/cat/002.jpg", "val/dog/003.jpg"]
    bad = {"replaced": 3, "skipped": 0} if rule == "replace" else {"replaced": 0, "skipped": 3}
    assert counts == {"read": 12 - bad["skipped"], "used": 9, **bad}


def test_a_training_lists_what_all_of_its_feeds_could_not_use(plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_training_job(Learn(plan), ENGINE, out, SilentConsole()) == {"images": 24}
    assert keys_in(out) == ["train/cat/000.jpg", "val/cat/002.jpg", "val/dog/003.jpg"]
    assert json.loads((out / "counts.json").read_text()) == {
        "read": 24,
        "used": 18,
        "replaced": 6,
        "skipped": 0,
    }


def test_a_run_that_is_stopped_for_too_many_leaves_the_whole_list(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"at most 2 bad files .*quarantine\.jsonl"):
        run_batch_job(Count(plan_of(tmp_path, max_bad=2)), ENGINE, tmp_path / "out", SilentConsole())
    assert keys_in(tmp_path / "out") == ["train/cat/000.jpg", "val/cat/002.jpg", "val/dog/003.jpg"]


def test_entries_of_earlier_epochs_outlast_a_new_start(plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_training_job(Learn(plan, View(split="train", shuffle=True)), ENGINE, out, SilentConsole())
    old = [{"epoch": epoch, "key": "x", "step": "read", "reason": "?"} for epoch in (0, 1)]
    (out / "quarantine.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in old))
    later = Learn(plan, View(split="train", shuffle=True, first_epoch=1, num_epochs=1))
    run_training_job(later, ENGINE, out, SilentConsole())
    listed = read_quarantine(out / "quarantine.jsonl")
    assert [entry["epoch"] for entry in listed if entry["key"] == "x"] == [0]
    assert "train/cat/000.jpg" in keys_in(out)


def test_what_was_found_is_on_disk_while_the_job_still_runs(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "INTERVAL_S", 0.05)
    with QuarantineLog(tmp_path / "quarantine.jsonl") as kept, kept.record(ENGINE).feed(plan, View()) as feed:
        batches = iter(feed)
        next(batches)
        deadline = time.monotonic() + HANG_S
        while "train/cat/000.jpg" not in keys_in(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert "train/cat/000.jpg" in keys_in(tmp_path)


KILLED = """
import sys, time
from pathlib import Path
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.workers.quarantine_log import QuarantineLog

with QuarantineLog(Path(sys.argv[2], "quarantine.jsonl")) as kept, kept.record(LocalEngine()).feed(Plan.load(sys.argv[1]), View()) as feed:
    list(feed)
    time.sleep(600)
"""


@pytest.mark.fault("SIGKILL of a job with files in quarantine")
def test_a_kill_does_not_lose_the_list(plan: Plan, tmp_path: Path) -> None:
    plan.save(tmp_path / "plan.yaml")
    out = tmp_path / "out"
    out.mkdir()
    with warm.running(KILLED, tmp_path / "plan.yaml", out) as run:
        wait_until(lambda: len(keys_in(out)) >= 3 or not run.process.is_alive(), HANG_S, "three entries")
        run.process.kill()
        assert run.end().returncode == -signal.SIGKILL
    assert len(keys_in(out)) == 3


def test_a_list_that_cannot_be_written_is_said_unless_the_run_failed_itself(
    plan: Plan, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    gone = tmp_path / "file" / "quarantine.jsonl"
    with (
        pytest.raises(OutputError, match=r"expected to write .*quarantine\.jsonl"),
        QuarantineLog(gone) as kept,
        kept.record(ENGINE).feed(plan, View()) as feed,
    ):
        list(feed)
    with pytest.raises(ValueError, match="the run's own"), QuarantineLog(gone):
        raise ValueError("the run's own")


class Growing:
    """A stream that is found more in, as often as it is told to."""

    def __init__(self, *, lists_after: bool) -> None:
        self.found: list[dict[str, Any]] = []
        self.listed: list[int] = []
        self.counts: dict[str, int] = {}
        if lists_after:
            self.quarantine_from = self._from

    @property
    def quarantine(self) -> list[dict[str, Any]]:
        return sorted(self.found, key=lambda entry: entry["key"])

    def _from(self, first: int) -> list[dict[str, Any]]:
        fresh = self.found[first:]
        self.listed.append(len(fresh))
        return fresh

    def find(self, *keys: str) -> None:
        self.found += [{"epoch": 0, "key": key, "step": "read", "reason": f"{key}\u2028?"} for key in keys]


@pytest.mark.parametrize("lists_after", [True, False])
def test_what_is_new_is_written_behind_and_put_in_order_at_the_end(tmp_path: Path, lists_after: bool) -> None:
    path = tmp_path / "quarantine.jsonl"
    stream = Growing(lists_after=lists_after)
    with QuarantineLog(tmp_path / "quarantine.jsonl") as kept:
        kept._add_feed(stream, resumed=False)
        stream.find("m")
        kept.write()
        begun = path.stat().st_ino
        stream.find("z")
        kept.write()
        kept.add_entries([{"epoch": 0, "key": "b", "step": "read", "reason": "?"}])
        stream.find("a", "m")
        kept.write()
        assert [entry["key"] for entry in read_quarantine(path)] == ["m", "z", "b", "a"]
        assert path.stat().st_ino == begun
        if lists_after:
            assert stream.listed == [1, 1, 2]  # and never all again
    assert [entry["key"] for entry in read_quarantine(path)] == ["a", "b", "m", "z"]
    assert read_quarantine(path)[0]["reason"] == "a\u2028?"
    assert path.stat().st_ino != begun


def test_half_a_line_is_read_by_nobody_and_mended_by_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    entries = [{"epoch": 0, "key": key, "step": "read"} for key in "ab"]
    whole = "".join(json.dumps(entry) + "\n" for entry in entries)
    path.write_text(whole[:-9])
    assert read_quarantine(path) == entries[:1]
    with QuarantineLog(path, previous=read_quarantine(path)) as kept:
        kept.add_entries(entries[1:])
    assert path.read_text() == whole


def test_a_disk_that_was_full_for_a_while_costs_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "quarantine.jsonl"
    stream = Growing(lists_after=True)

    def half(entries: Any, path: Path) -> None:
        with path.open("a") as file:
            file.write('{"epoch": 0, "ke')
        raise OSError("no space left")

    with QuarantineLog(tmp_path / "quarantine.jsonl") as kept:
        kept._add_feed(stream, resumed=False)
        kept.write()
        stream.find("b")
        monkeypatch.setattr(ledger, "append_quarantine", half)
        with pytest.raises(OSError, match="no space"):
            kept.write()
        stream.find("a")
    assert [entry["key"] for entry in read_quarantine(path)] == ["a", "b"]
