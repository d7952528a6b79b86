"""The ``bench`` command: validate the request, run the benchmarks, print and write results."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightwell.pipeline.errors import RequestError, SourceError, did_you_mean
from rich.console import Console

from .benchmark import Benchmark, Work
from .catalogue import find_benches
from .report import BenchmarkResult, check_writable, document, machine, print_table, versions, write_json
from .runner import run_rounds

BUSY = 0.5
"""Load average above which results are unreliable."""


def run(
    name: str, data: Path, json_file: Path | None, *, seconds: float, rounds: int, only: Sequence[str] = ()
) -> None:
    """Run one benchmark or all.

    Args:
        name: name of a benchmark, or ``all``.
        data: folder of photos; read only.
        json_file: output file for the results, if any.
        seconds: measured seconds per run.
        rounds: runs per contestant.
        only: names of the contestants to run (default: all).

    Raises:
        RequestError: the name, the folder or the name of a contestant is invalid.
        RunError: a contestant of Lightwell failed.
        OutputError: the JSON cannot be written.
    """
    benches = [select_contestants(bench, only) for bench in find_benches(name)]
    if not data.is_dir():
        raise SourceError(f"--data: expected a folder with photos, got {str(data)!r}; check the path")
    found = machine()
    progress = Console(stderr=True, highlight=False, markup=False)
    if found["load_at_start"] > BUSY:
        progress.print(f"note: this machine is busy (load {found['load_at_start']:.1f}); figures will be low")
    if json_file is not None:
        check_writable(json_file)
    table = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    table.print(f"{found['cpu']}, {found['cores']} cores, {found['system']}, Python {found['python']}")
    table.print(", ".join(f"{package} {version}" for package, version in versions().items()))
    results = []
    for bench in benches:
        results.append(measure(bench, data, seconds, rounds, progress))
        print_table(results[-1], table)
        if json_file is not None:
            write_json(document(name, results, found), json_file)


def select_contestants(bench: Benchmark, only: Sequence[str]) -> Benchmark:
    """Return the benchmark with the given contestants only."""
    names = [contestant.name for contestant in bench.contestants]
    for name in only:
        if name not in names:
            hint = did_you_mean(name, names) or f"name some of {', '.join(names)}"
            raise RequestError(f"--only: expected a contestant of {bench.name}, got {name!r}; {hint}")
    chosen = tuple(contestant for contestant in bench.contestants if not only or contestant.name in only)
    return replace(bench, contestants=chosen)


def measure(bench: Benchmark, data: Path, seconds: float, rounds: int, progress: Console) -> BenchmarkResult:
    """Run one benchmark in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="lightwell-bench-") as scratch:
        progress.print(f"{bench.name}: preparing")
        photos = bench.prepare(data, Path(scratch))
        work = Work(photos, scratch, bench.batch_size, seconds)
        num_rounds = 1 if bench.is_deterministic else rounds
        runs, left_out = run_rounds(bench, work, num_rounds, progress.print)
        details = bench.details(Path(scratch)) if bench.details else []
        return BenchmarkResult(bench, runs, left_out, len(photos), seconds, details)
