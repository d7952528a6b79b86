"""Feed statistics: times add up to wall-clock time, and the bottleneck is named."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.progress import LineConsole
from lightwell.pipeline.monitor.stats import FeedStats, ThreadStats
from lightwell.pipeline.monitor.step_timer import FeedMonitor, QueueGauge, StepTimer
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from pictures import make_picture, write_picture

PAUSE_S = 0.05


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Forty images for which decoding dominates."""
    for i in range(40):
        write_picture(tmp_path / "photos" / f"{i:02}.jpg", make_picture(i, 600, 800))
    build_index(tmp_path / "photos").save(tmp_path / "index.parquet")
    crop = {"RandomResizedCrop": {"size": [32, 32], "scale": [0.9, 1.0]}}
    return Plan.model_validate(
        {"index": tmp_path / "index.parquet", "augment": [crop], "batch": {"size": 4}, "decode": "exact"}
    )


def stats(*threads: ThreadStats, num_batches: int = 9, wall_s: float = 10.0) -> FeedStats:
    return FeedStats(
        wall_s, 1.0, 15.0, 2, 90, num_batches, 9.0, 9.5, 0, 0, threads, (), 10**9, 10**8
    )  # fmt: skip


def thread(stage: str, **seconds: float) -> ThreadStats:
    return ThreadStats(stage, sum(seconds.values()), seconds, {})


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("backend", ["opencv", "dali"])
def test_the_time_of_each_thread_adds_up_to_its_lifetime(plan: Plan, num_threads: int, backend: str) -> None:
    paused = 0.0
    started = time.perf_counter()
    engine = LocalEngine(num_threads=num_threads, backend=backend)  # type: ignore[arg-type]
    with engine.feed(plan, View(augment=True, num_epochs=3)) as feed:
        batches = iter(feed)
        next(batches)
        first = time.perf_counter()
        for _ in batches:
            asleep = time.perf_counter()
            time.sleep(PAUSE_S)
            paused += time.perf_counter() - asleep
        last = time.perf_counter()
        found = feed.stats()
        ended = time.perf_counter()
    assert last - first < found.wall_s < ended - started
    makers = [one for one in found.threads if one.stage == "process"]
    readers = [one for one in found.threads if one.stage == "read"]
    assert len(makers) == len(readers) == num_threads
    for one in found.threads:
        assert sum(one.seconds.values()) == pytest.approx(one.wall_s, rel=0.02)
        assert 0 < one.wall_s < ended - started  # a thread may have to wait for a core before it begins
    (consumer,) = [one for one in found.threads if one.stage == "consume"]
    assert last - first < consumer.wall_s < ended - started
    assert paused < consumer.seconds["consumer"] < consumer.wall_s
    assert (found.num_samples, found.num_batches) == (120, 30)
    assert feed.stats().wall_s == found.wall_s


def test_steps_are_timed_separately_and_bytes_are_counted(plan: Plan) -> None:
    with LocalEngine(num_threads=1).feed(plan, View(augment=True)) as feed:
        list(feed)
        found = feed.stats()
    rows = plan.load_index().table
    assert found.bytes("read") == sum(rows["bytes"].to_pylist())
    assert 0.8 * 40 * 600 * 800 * 3 < found.bytes("decode") <= 40 * 600 * 800 * 3
    assert found.bytes("write") == 40 * 32 * 32 * 3
    decoding = found.seconds("process", "decode")
    assert decoding > 3 * found.seconds("process", "transform") > 0
    assert decoding > found.seconds("process", "write") > 0


def test_a_slow_consumer_and_slow_decoding_are_named(plan: Plan) -> None:
    with LocalEngine(num_threads=2).feed(plan, View(augment=True)) as feed:
        asked = time.perf_counter()
        for _ in feed:
            waited = time.perf_counter() - asked
            time.sleep(PAUSE_S + 4 * waited)  # slower than the pipeline, however slow the machine makes that
            asked = time.perf_counter()
        assert feed.stats().bottleneck().startswith("the consumer: the pipeline waited for it")
    with LocalEngine(num_threads=2).feed(plan, View(augment=True, num_epochs=12)) as feed:
        for _ in feed:
            pass
        found = feed.stats()
        making = {step: found.share("process", step) for step in ("sample", "decode", "transform", "write")}
        assert max(making, key=making.__getitem__) == "decode"
        # On a loaded machine threads wake up late, so that the handoff costs more than decoding.
        assert found.bottleneck().startswith(("decoding: ", "handoff: "))


def test_the_bottleneck_follows_from_the_shares() -> None:
    busy = thread("process", sample=0.4, decode=9.1, transform=0.4, write=0.1)
    waiting = thread("consume", input=9.5, consumer=0.5)
    assert stats(busy, busy, waiting).bottleneck().startswith("decoding: 91 % of both ")
    starved = thread("process", decode=2.0, input=8.0)
    assert stats(starved, waiting).bottleneck() == (
        "reading: the decoding threads waited for files 80 % of the time"
    )
    idle = thread("process", decode=2.2, output=7.8)
    assert stats(idle, thread("consume", consumer=9.0, input=1.0)).bottleneck() == (
        "the consumer: the pipeline waited for it 78 % of the time"
    )
    assert stats(num_batches=0).bottleneck().startswith("unknown")


def test_the_table_has_a_line_for_each_step_and_ends_with_the_bottleneck() -> None:
    busy = ThreadStats("process", 10.0, {"sample": 0.4, "decode": 9.6}, {"decode": 5_000_000})
    *table, summary, verdict = stats(busy, thread("consume", input=9.5, consumer=0.5)).lines()
    assert [line.split()[0] for line in table] == [
        "step", "sample", "decode", "transform", "write", "batch", "consumer",
    ]  # fmt: skip
    assert "96 %" in table[2]
    assert table[2].endswith("5.0 MB")
    assert summary.startswith("90 images in 10.0 s, 9 a second")
    assert verdict.startswith("bottleneck: decoding: 96 % of both ")


def test_the_current_rate_covers_the_last_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    monitor = FeedMonitor()
    monitor.start()
    for now in (float(second) for second in range(1, 101)):
        monitor.count_batch(1 if now <= 50 else 10)
    found = monitor.read(num_threads=1, replaced=0, memory_bytes=0, peak_bytes=0)
    assert found.samples_per_second == pytest.approx(550 / 100)
    assert found.samples_per_second_now == pytest.approx(10)


def test_cache_hits_are_counted() -> None:
    monitor = FeedMonitor()
    monitor.start()
    monitor.count_cache_hits(3)
    monitor.count_cache_hits(4)
    found = monitor.read(num_threads=1, replaced=0, memory_bytes=0, peak_bytes=0)
    assert found.cache_hits == 7
    assert "7 from the cache" in found.summary()


def test_a_queue_averages_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    queue = QueueGauge("some", _started=0.0, _since=0.0)
    queue.change(4)
    now = 1.0
    queue.change(-4)
    now = 4.0
    assert (queue.read().depth, queue.read().mean_depth) == (0, 1.0)


def test_a_stopped_timer_does_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    timer = StepTimer("process")
    now = 2.0
    timer.enter("decode")
    now = 5.0
    timer.stop()
    now = 9.0
    timer.enter("write")
    assert (timer.read().wall_s, timer.read().seconds) == (5.0, {"output": 2.0, "decode": 3.0})


def test_plain_lines_show_progress_and_rate(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightwell.pipeline.jobs.progress.PLAIN_INTERVAL_S", 0.0)
    stream = io.StringIO()
    with LocalEngine().feed(plan, View(augment=True)) as feed:
        assert len(list(LineConsole(stream).track(feed, "work"))) == 10
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("work: 100 % done, 40 images, ")
    assert " a second, about " in lines[-1]
