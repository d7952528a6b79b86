"""Contestants in turn, each run in a fresh process: a warm pass of all, then A B C, A B C, ..."""

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

from .contest import Bench, Contestant, Runs, Work, figure

TESTS = Path(__file__).resolve().parents[1]
WARM_PASS_S = 1.0
"""Measured seconds of the warm pass, which is thrown away: the page cache fills, shards are written."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""For all alike: workers are the parallelism, threads inside an operation would fight them."""

Say = Callable[[str], None]
Take = Callable[[Bench, Contestant, Work], float]


def order_of_turns(contestants: Sequence[Contestant], num_rounds: int) -> Iterator[tuple[int, Contestant]]:
    """Yield (round, contestant); round 0 is the warm pass."""
    for number in range(num_rounds + 1):
        for contestant in contestants:
            yield number, contestant


def take_turns(
    bench: Bench, work: Work, num_rounds: int, say: Say, take: Take | None = None
) -> tuple[dict[str, Runs], dict[str, str]]:
    """Run every contestant in every round; return the values, and who was left out and why.

    Raises:
        RunError: one of ours failed, or there is nobody to compare.
    """
    take = take or take_turn
    values: dict[str, list[float]] = {}
    left_out: dict[str, str] = {}
    units = {one.who: one.unit or bench.unit for one in bench.contestants}
    for number, contestant in order_of_turns(bench.contestants, num_rounds):
        who = contestant.who
        if number == 0 and bench.settles_at_once:  # no clock, nothing to warm
            continue
        if not is_installed(contestant.needs):
            left_out[who] = f"{contestant.needs} is not installed"
        if who in left_out:
            continue
        settings = replace(
            work,
            output=contestant.output,
            seconds=min(work.seconds, WARM_PASS_S) if number == 0 else work.seconds,
        )
        try:
            value = take(bench, contestant, settings)
        except RunError as error:
            if contestant.is_ours:
                raise
            left_out[who] = str(error)
            values.pop(who, None)
            say(f"{bench.name}: {who} is left out: {error}")
            continue
        stage = f"round {number} of {num_rounds}" if number else "warm pass"
        say(f"{bench.name}: {stage}: {who}: {figure(value)} {units[who]}")
        if number:
            values.setdefault(who, []).append(value)
    return {who: Runs(who, units[who], tuple(found)) for who, found in values.items()}, left_out


def is_installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    return not package or importlib.util.find_spec(package) is not None


def take_turn(bench: Bench, contestant: Contestant, work: Work) -> float:
    """Run a contestant once, in a fresh process; end it and its children when it takes too long.

    Raises:
        RunError: it failed or took too long.
    """
    scratch = Path(work.scratch)
    work_file, result, log = scratch / "work.json", scratch / "result.json", scratch / "log.txt"
    work_file.write_text(json.dumps(asdict(work)))
    result.unlink(missing_ok=True)
    measure = "pace" if bench.streams and not contestant.unit else "value"
    command = [sys.executable, "-m", "benchmarks.turn", work_file, contestant.target, measure, result]
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
            end_group(process)
    if process.returncode or not result.exists():
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        reason = lines[-1].strip()[:300] if lines else "no word of why"
        raise RunError(f"{contestant.who} ended with exit code {process.returncode}: {reason}")
    return float(json.loads(result.read_text()))


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and the workers it may have left."""
    for number in (signal.SIGTERM, signal.SIGKILL):  # the first lets Ray stop what it started
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)


def environment() -> dict[str, str]:
    """The environment of a run: one thread inside operations, no look-ups of newer versions."""
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        **ONE_THREAD,
        "PYTHONPATH": os.pathsep.join(paths),
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
