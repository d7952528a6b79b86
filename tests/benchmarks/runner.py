"""Run contestants in interleaved rounds (A B C, A B C, ...) after a warm-up round, each run in a fresh process."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from lightwell.pipeline.errors import RunError

from .benchmark import Benchmark, Contestant, Runs, Work, format_value

TESTS = Path(__file__).resolve().parents[1]
WARM_PASS_S = 1.0
"""Measured seconds of the warm-up round, whose values are discarded: the page cache fills, shards are written."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""Environment of all runs: workers provide the parallelism, without threads inside operations."""

Log = Callable[[str], None]
RunOne = Callable[[Benchmark, Contestant, Work], float]


def run_order(contestants: Sequence[Contestant], num_rounds: int) -> Iterator[tuple[int, Contestant]]:
    """Yield (round, contestant); round 0 is the warm-up."""
    for number in range(num_rounds + 1):
        for contestant in contestants:
            yield number, contestant


def run_rounds(
    bench: Benchmark, work: Work, num_rounds: int, log: Log, run_one: RunOne | None = None
) -> tuple[dict[str, Runs], dict[str, str]]:
    """Run every contestant in every round; return the values, and the contestants left out with the reason.

    Raises:
        RunError: a contestant of Lightwell failed.
    """
    run_one = run_one or run_once
    values: dict[str, list[float]] = {}
    left_out: dict[str, str] = {}
    units = {one.name: one.unit or bench.unit for one in bench.contestants}
    for number, contestant in run_order(bench.contestants, num_rounds):
        name = contestant.name
        if number == 0 and bench.is_deterministic:  # no timing, no warm-up needed
            continue
        if not is_installed(contestant.needs):
            left_out[name] = f"{contestant.needs} is not installed"
        if name in left_out:
            continue
        settings = replace(
            work,
            output=contestant.output,
            seconds=min(work.seconds, WARM_PASS_S) if number == 0 else work.seconds,
        )
        try:
            value = run_one(bench, contestant, settings)
        except RunError as error:
            if contestant.is_lightwell:
                raise
            left_out[name] = str(error)
            values.pop(name, None)
            log(f"{bench.name}: {name} is left out: {error}")
            continue
        stage = f"round {number} of {num_rounds}" if number else "warm-up"
        log(f"{bench.name}: {stage}: {name}: {format_value(value)} {units[name]}")
        if number:
            values.setdefault(name, []).append(value)
    return {name: Runs(name, units[name], tuple(found)) for name, found in values.items()}, left_out


def is_installed(package: str) -> bool:
    """Return whether a package is installed, without importing it."""
    return not package or importlib.util.find_spec(package) is not None


def run_once(bench: Benchmark, contestant: Contestant, work: Work) -> float:
    """Run a contestant once in a fresh process, which is killed with its children at a time limit.

    Raises:
        RunError: it failed or exceeded the time limit.
    """
    scratch = Path(work.scratch)
    work_file, result, log = scratch / "work.json", scratch / "result.json", scratch / "log.txt"
    work_file.write_text(json.dumps(asdict(work)))
    result.unlink(missing_ok=True)
    measure = "throughput" if bench.streams and not contestant.unit else "value"
    command = [sys.executable, "-m", "benchmarks.single_run", work_file, contestant.target, measure, result]
    limit_s = 180 + 20 * work.seconds
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment(),
            start_new_session=True,
        )
        try:
            process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise RunError(f"expected a value within {limit_s:.0f} s, got none") from None
        finally:
            terminate_group(process)
    if process.returncode or not result.exists():
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        reason = lines[-1].strip()[:300] if lines else "no output"
        raise RunError(f"{contestant.name} ended with exit code {process.returncode}: {reason}")
    return float(json.loads(result.read_text()))


def terminate_group(process: subprocess.Popen[bytes]) -> None:
    """Terminate the process group: the process and its remaining workers."""
    for number in (signal.SIGTERM, signal.SIGKILL):  # SIGTERM lets Ray stop its processes
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)


def environment() -> dict[str, str]:
    """Return the environment of a run: single-threaded operations, no online version check."""
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        **ONE_THREAD,
        "PYTHONPATH": os.pathsep.join(paths),
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
