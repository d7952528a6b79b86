"""Memory budget: never exceeded, whatever the sizes; batches stay the same; no deadlocks."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import shutil
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import warm
from hypothesis import given
from hypothesis import strategies as st
from lightwell.pipeline.errors import PlanError, RequestError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.machine import default_memory_bytes, machine_memory_bytes, num_cpus, parse_size
from lightwell.pipeline.memory.budget import BudgetSplit, MemoryBudget, split_budget
from lightwell.pipeline.memory.estimates import split_by_bytes
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from patience import HANG_S
from pictures import make_picture, write_picture

MB = 10**6
SIZES = [(8, 8), (12, 3000), (100, 140), (480, 640), (1200, 1600), (2000, 1500), (4000, 6000)]
POLICY = [{"RandomResizedCrop": {"size": [64, 64], "scale": [0.3, 1.0]}}, "HorizontalFlip"]


@pytest.fixture(scope="module")
def index_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures from 8x8 to 6000x4000, the large ones as JPEG and one as PNG."""
    root = tmp_path_factory.mktemp("sizes")
    for number in range(28):
        height, width = SIZES[number % 6]
        kind = "png" if number % 3 == 0 else "jpg"
        write_picture(root / "photos" / f"{number:02}.{kind}", make_picture(number, height, width))
    for number in range(2):
        write_picture(root / "photos" / f"9{number}.jpg", make_picture(number, *SIZES[6]))
    build_index(root / "photos").save(root / "index.parquet")
    return root / "index.parquet"


def plan_for(index_path: Path, **changes: object) -> Plan:
    return Plan.model_validate({"index": index_path, "augment": POLICY, "batch": {"size": 7}, **changes})


WAYS = ["reduced", "exact", "cached", "cached as jpeg", "dali"]


def plan_on(way: str, index_path: Path, cache_dir: Path) -> Plan:
    """A plan for one path; with a cache the full image is decoded despite a crop."""
    if way == "dali":
        return plan_for(index_path)
    if not way.startswith("cached"):
        return plan_for(index_path, decode="auto" if way == "reduced" else "exact")
    cache = {"dir": cache_dir, **({"format": "jpeg"} if "jpeg" in way else {})}
    return plan_for(index_path, decode="exact", cache=cache)


def backend_of(way: str) -> Literal["opencv", "dali"]:
    return "dali" if way == "dali" else "opencv"


def run(plan: Plan, engine: LocalEngine) -> tuple[list[str], int]:
    """Hashes of the batches, and the peak bytes in flight."""
    with engine.feed(plan, View(shuffle=True, augment=True, num_epochs=2)) as feed:
        hashes = [
            hashlib.sha256(b.images.numpy().tobytes() + repr(b.keys).encode()).hexdigest() for b in feed
        ]
        return hashes, feed.stats().peak_bytes


@pytest.mark.parametrize("way", WAYS)
def test_no_budget_is_exceeded_and_none_changes_a_batch(index_path: Path, tmp_path: Path, way: str) -> None:
    plan = plan_on(way, index_path, tmp_path / "cache")
    backend = backend_of(way)
    reference, _ = run(plan, LocalEngine(num_threads=1, prefetch=1, memory_bytes=2_000 * MB, backend=backend))
    # With a cache the largest image takes three times its pixels, which have to fit the pixels part.
    little, more = (360 * MB, 540 * MB) if way.startswith("cached") else (220 * MB, 400 * MB)
    for memory_bytes, threads, prefetch in ((little, 1, 8), (little, 3, 3), (more, 3, 3)):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        engine = LocalEngine(
            num_threads=threads, prefetch=prefetch, memory_bytes=memory_bytes, backend=backend
        )
        hashes, peak = run(plan, engine)
        assert hashes == reference
        assert 0 < peak <= memory_bytes


def test_an_image_larger_than_the_budget_is_processed_alone_with_a_warning(
    index_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = plan_for(index_path, decode="exact", augment=[{"Resize": {"height": 64, "width": 64}}])
    reference, _ = run(plan, LocalEngine(memory_bytes=2_000 * MB))
    assert caplog.records == []
    with caplog.at_level(logging.WARNING):
        hashes, _ = run(plan, LocalEngine(num_threads=2, memory_bytes=20 * MB))
    assert hashes == reference
    assert "processed alone; raise --memory" in caplog.text
    assert len(caplog.records) == 1


def test_batches_that_cannot_fit_are_rejected_before_reading(index_path: Path) -> None:
    with pytest.raises(
        PlanError, match=r"expected at least .* for batches of 86.0 kB, got 100.0 kB; give more"
    ):
        LocalEngine(memory_bytes=100_000).feed(plan_for(index_path), View(augment=True))


def test_a_feed_that_is_closed_while_it_waits_for_memory_ends(index_path: Path) -> None:
    plan = plan_for(index_path, decode="exact", augment=[{"Resize": {"height": 64, "width": 64}}])
    for taken in range(3):
        with LocalEngine(num_threads=2, prefetch=4, memory_bytes=20 * MB).feed(
            plan, View(augment=True)
        ) as feed:
            iterator = iter(feed)
            for _ in range(taken):
                next(iterator)
            iterator.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lightwell")]


GROWTH = """
import re, sys
import cv2, torch, numpy, albumentations, pyarrow
from lightwell import LocalEngine, Plan, View

def told(name):  # getrusage would tell the parent's peak, which a child inherits
    return int(re.search(rf"{name}:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

plan = Plan.load(sys.argv[1])
engine = LocalEngine(num_threads=2, memory_bytes=int(sys.argv[2]), backend=sys.argv[3])
with engine.feed(plan, View(augment=True, keys=("00.png", "06.png", "12.png"))) as feed:
    list(feed)
open("/proc/self/clear_refs", "w").write("5")
before = told("VmRSS")
with engine.feed(plan, View(augment=True, num_epochs=3)) as feed:
    for batch in feed:
        pass
    peak = feed.stats().peak_bytes
print(told("VmHWM") - before, peak)
"""


@pytest.mark.parametrize(
    ("megabytes", "way"),
    [(220, "exact"), (400, "exact"), (400, "cached"), (400, "cached as jpeg"), (400, "dali")],
)
def test_resident_memory_grows_by_no_more_than_the_budget_and_a_half(
    index_path: Path, tmp_path: Path, megabytes: int, way: str
) -> None:
    plan_on(way, index_path, tmp_path / "cache").save(tmp_path / "plan.yaml")
    done = warm.run(GROWTH, tmp_path / "plan.yaml", megabytes * MB, backend_of(way))
    assert done.returncode == 0, done.stderr
    growth, peak = map(int, done.stdout.split())
    assert peak <= megabytes * MB
    assert growth <= 1.5 * megabytes * MB, (growth / MB, peak / MB)
    assert growth > 0.2 * peak, "the estimate is not of this world"


@given(st.lists(st.integers(0, 50)), st.integers(1, 60))
def test_runs_keep_order_and_bound(sizes: list[int], most: int) -> None:
    runs = list(split_by_bytes(sizes, sizes.__getitem__, most))
    assert [size for run, _ in runs for size in run] == sizes
    assert all(len(run) == 1 or sum(run) <= most for run, _ in runs)
    assert all(sum(run) == num_bytes for run, num_bytes in runs)
    for (run, num_bytes), (following, _) in pairwise(runs):
        assert num_bytes + following[0] > most, (run, following)


@given(st.integers(1, 10**9), st.integers(0, 20), st.integers(10**6, 10**10), st.booleans())
def test_a_split_budget_adds_up_and_holds_two_batches(
    batch: int, prefetch: int, memory: int, cached: bool
) -> None:
    try:
        shares = split_budget(memory, batch_bytes=batch, prefetch=prefetch, cached=cached)
    except PlanError:
        assert 2 * batch > 0.75 * memory * (0.875 if cached else 1)
        return
    assert shares.total == memory
    assert (shares.cache > 0) == cached
    assert shares.cache <= memory / 8
    assert 2 * batch <= shares.rows <= max(memory / 2, 2 * batch)
    assert min(shares.files, shares.pixels) >= 0


def test_threads_in_any_order_never_exceed_a_part_nor_deadlock() -> None:
    shares = BudgetSplit(rows=10, files=20, pixels=30)
    budget = MemoryBudget(shares)
    chance = random.Random(3)
    tickets = [(ticket, chance.randint(1, 20)) for ticket in range(200)]
    ready: list[tuple[int, int]] = []
    order: list[int] = []
    lock = threading.Lock()
    wrong: list[int] = []

    def read(share: list[tuple[int, int]]) -> None:
        for ticket, size in share:
            budget.reserve_file(ticket, size)
            with lock:
                order.append(ticket)
                ready.append((ticket, size))

    def make() -> None:
        done = 0
        while done < len(tickets):
            with lock:
                item = ready.pop(0) if ready else None
                done = len(order) if not ready and len(order) == len(tickets) else 0
            if item is None:
                time.sleep(0.0002)
                continue
            with budget.pixels(min(30, item[1] + 9), "some"):
                if budget.used_bytes > shares.total:
                    wrong.append(budget.used_bytes)
            budget.release_file(item[1])

    threads = [threading.Thread(target=read, args=(tickets[i::3],)) for i in range(3)]
    threads += [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_S)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert sorted(order) == list(range(200))
    assert budget.used_bytes == 0
    assert 20 < budget.peak_bytes <= 50


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, 8_000_000 * 1024),
        ({"sys/fs/cgroup/a/b/memory.max": "max", "sys/fs/cgroup/a/memory.max": "5000000"}, 5_000_000),
        ({"sys/fs/cgroup/a/b/memory.max": "3000000", "sys/fs/cgroup/a/memory.max": "5000000"}, 3_000_000),
        ({"sys/fs/cgroup/memory/c/memory.limit_in_bytes": "4000000"}, 4_000_000),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, 8_000_000 * 1024),
    ],
    ids=["none", "v2 parent", "v2", "v1", "v1 without limit"],
)
def test_control_groups_limit_the_memory(tmp_path: Path, files: dict[str, str], limit: int) -> None:
    told = {
        "proc/meminfo": "MemTotal:        8000000 kB\nMemFree: 1 kB\n",
        "proc/self/cgroup": "4:memory:/c\n1:cpu:/d\n0::/a/b\n",
    }
    for name, text in {**told, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine_memory_bytes(tmp_path) == limit


@pytest.mark.parametrize(
    ("groups", "files", "num"),
    [
        ("0::/a/b\n", {}, None),
        ("0::/a/b\n", {"sys/fs/cgroup/a/b/cpu.max": "max 100000"}, None),
        ("0::/a/b\n", {"sys/fs/cgroup/a/b/cpu.max": "100000 100000"}, 1),
        (
            "0::/a/b\n",
            {"sys/fs/cgroup/a/b/cpu.max": "max 100000", "sys/fs/cgroup/a/cpu.max": "20000 100000"},
            1,
        ),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "100000 100000"}, 1),
        (
            "4:cpu,cpuacct:/c\n0::/a\n",
            {
                "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us": "100000",
            },
            1,
        ),
        (
            "4:cpu,cpuacct:/host/path\n",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "90000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            1,
        ),
        (
            "4:cpu:/c\n",
            {"sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000"},
            None,
        ),
        ("0::/a\n", {"sys/fs/cgroup/a/cpu.max": "6400000 100000"}, None),
    ],
    ids=[
        "none",
        "v2 max",
        "v2",
        "v2 parent",
        "v2 namespace",
        "v1",
        "v1 in a container",
        "v1 no limit",
        "large",
    ],
)
def test_control_groups_limit_the_cpus(
    tmp_path: Path, groups: str, files: dict[str, str], num: int | None
) -> None:
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert num_cpus(tmp_path) == (num or len(os.sched_getaffinity(0)))


PINNED = """
import os, json
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
from lightwell.pipeline.machine import num_cpus
from lightwell import LocalEngine, Plan, View
with LocalEngine().feed(Plan.load(os.sys.argv[1]), View()) as feed:
    list(feed)
    print(json.dumps([num_cpus(), feed.stats().num_threads]))
"""


def test_an_affinity_of_one_cpu_gives_one_thread(index_path: Path, tmp_path: Path) -> None:
    plan_for(index_path, preprocess=[{"Resize": {"height": 8, "width": 8}}], augment=[]).save(
        tmp_path / "plan.yaml"
    )
    done = warm.run(PINNED, tmp_path / "plan.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[1,", "1]"]


def test_the_default_is_a_quarter_of_this_machine() -> None:
    assert default_memory_bytes() == machine_memory_bytes() // 4 > 2**26


@pytest.mark.parametrize(
    ("text", "size"),
    [("2G", 2 * 10**9), ("512MiB", 2**29), ("1.5 gb", 1.5e9), ("70", 70), ("2T", 2 * 10**12)],
)
def test_sizes_are_parsed_with_units(text: str, size: float) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "0", "-1G", "2X", "4E12"])
def test_an_invalid_size_is_rejected(text: str) -> None:
    with pytest.raises(RequestError, match="expected a size such as 2G"):
        parse_size(text)


def test_batches_of_one_image_may_have_different_sizes(index_path: Path) -> None:
    plan = plan_for(index_path, augment=[], batch={"size": 1})
    with LocalEngine(num_threads=2, memory_bytes=330 * MB).feed(plan, View()) as feed:
        shapes = [tuple(batch.images.shape[1:3]) for batch in feed]
        assert feed.stats().peak_bytes <= 330 * MB
    rows = plan.load_index().table.to_pylist()
    assert shapes == [(row["height"], row["width"]) for row in rows]
    assert np.prod(shapes[-1]) == 24e6
