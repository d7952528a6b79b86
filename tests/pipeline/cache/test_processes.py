"""Concurrent, killed and out-of-space processes with one cache: no wrong pixel, no lost run."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from cached import plan_for, run, run_and_tell, shards_of
from lightwell.pipeline.cache.maintenance import verify
from lightwell.pipeline.cache.shard import open_shard
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.plan.plan import Plan
from pictures import make_folder
from warm import server

SMALL_SHARDS = 1_200_000
"""A limit that is never reached; shards are a sixteenth of it, so that many are written."""
NUM_PICTURES = 60


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    """Processes that start at once: the server has imported what they need, and has no threads."""
    return server()


@pytest.fixture(scope="module")
def index_of_many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    path = folder / "index.parquet"
    build_index(make_folder(folder / "photos", num_images=NUM_PICTURES), fractions={"train": 1.0}).save(path)
    return path


@pytest.fixture(scope="module")
def reference(index_of_many: Path) -> list[str]:
    return run(plan_for(index_of_many))[0]


def small_shards(index: Path, cache: Path) -> Plan:
    return plan_for(index, cache={"dir": cache, "max_bytes": SMALL_SHARDS})


def start(
    processes: multiprocessing.context.ForkServerContext, plan: Plan, most_file_bytes: int | None = None
) -> tuple[ForkServerProcess, Connection]:
    results, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=run_and_tell, args=(plan, theirs, most_file_bytes))
    process.start()
    theirs.close()
    assert results.recv() == "ready"
    return process, results


def finish(process: ForkServerProcess, results: Connection) -> tuple[list[str], dict[str, int], list[str]]:
    told: tuple[list[str], dict[str, int], list[str]] = results.recv()
    process.join()
    assert process.exitcode == 0
    return told


@pytest.mark.fault("two processes fill one cache at once")
def test_two_processes_fill_one_cache_at_once(
    processes: Any, index_of_many: Path, reference: list[str], tmp_path: Path
) -> None:
    plan = small_shards(index_of_many, tmp_path / "cache")
    for hashes, _, told in [finish(*one) for one in [start(processes, plan), start(processes, plan)]]:
        assert hashes == reference
        assert told == []
    assert [one.reason for one in verify(tmp_path / "cache") if one.reason] == []
    hashes, counts = run(plan)
    assert hashes == reference
    assert counts["misses"] == 0


def kill_while_filling(
    processes: Any, index: Path, reference: list[str], folder: Path, num_tries: int
) -> Iterator[int]:
    """Kill a process at times spread over its run; yield the number of shards left by each."""
    chance = random.Random(4)
    whole = start(processes, small_shards(index, folder / "whole"))
    started = time.perf_counter()
    finish(*whole)
    most_s = time.perf_counter() - started
    for number in range(num_tries):
        cache = folder / str(number)
        process, _ = start(processes, small_shards(index, cache))
        time.sleep((number + chance.random()) / num_tries * most_s)
        if process.is_alive():  # an ended process's id may be reused
            process.kill()
        process.join()
        shards = shards_of(cache)
        num_pictures = sum(len(open_shard(path)) for path in shards)
        hashes, counts = run(small_shards(index, cache))
        assert hashes == reference
        assert counts["damaged"] == 0
        assert counts["added"] == NUM_PICTURES - num_pictures
        assert [one for one in cache.rglob("*") if one.name.endswith(".part")] == []
        shutil.rmtree(cache, ignore_errors=True)
        yield len(shards)


@pytest.mark.fault("SIGKILL while the cache fills", times=8)
def test_after_a_kill_at_any_moment_no_pixel_is_wrong_and_finished_shards_are_used(
    processes: Any, index_of_many: Path, reference: list[str], tmp_path: Path
) -> None:
    assert len(list(kill_while_filling(processes, index_of_many, reference, tmp_path, 8))) == 8


@pytest.mark.fault("SIGKILL while the cache fills", times=100)
@pytest.mark.slow
def test_after_a_hundred_kills_no_pixel_is_wrong(
    processes: Any, index_of_many: Path, reference: list[str], tmp_path: Path
) -> None:
    left = list(kill_while_filling(processes, index_of_many, reference, tmp_path, 100))
    assert min(left) == 0 < max(left)  # some died before their shards, some after


@pytest.mark.fault("a disk that takes no more bytes while the cache fills")
def test_a_failing_disk_disables_adding_with_one_warning_and_the_run_continues(
    processes: Any, index_of_many: Path, reference: list[str], tmp_path: Path
) -> None:
    plan = plan_for(index_of_many, cache=tmp_path / "cache")
    hashes, counts, told = finish(*start(processes, plan, most_file_bytes=50_000))
    assert hashes == reference
    assert len(told) == 1
    assert "nothing more is added" in told[0]
    assert counts["hits"] == 0
    assert [one.name for one in (tmp_path / "cache").glob("*/*")] == ["recipe.json"]


@pytest.mark.fault("a full file system while the cache fills")
def test_a_full_disk_disables_adding_with_one_warning_and_written_shards_are_used(
    processes: Any, index_of_many: Path, reference: list[str], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small tmpfs: {mounted.stderr.decode().strip()}")
    try:
        hashes, _, told = finish(*start(processes, small_shards(index_of_many, disk / "cache")))
        assert hashes == reference
        assert len(told) == 1
        assert "the disk is full" in told[0]
        hashes, counts, _ = finish(*start(processes, small_shards(index_of_many, disk / "cache")))
        assert hashes == reference
        assert counts["hits"] > 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)
