"""The benchmarks as a command: checks the request before anything runs, then measures, prints and writes."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightwell.pipeline.errors import RequestError, SourceError, did_you_mean
from rich.console import Console

from .catalogue import find_benches
from .contest import Bench, Work
from .report import Outcome, check_writable, document, machine, print_table, versions, write_json
from .turns import take_turns

BUSY = 0.5
"""Load average above which figures are not worth much."""


def run(
    name: str, data: Path, json_file: Path | None, *, seconds: float, rounds: int, only: Sequence[str] = ()
) -> None:
    """Run the benchmarks that a name stands for.

    Args:
        name: of a benchmark, or ``all``.
        data: folder with the user's photos; nothing is written into it.
        json_file: where the figures go, if anywhere.
        seconds: of each run that are measured.
        rounds: how often every contestant runs.
        only: contestants to run, by name; all if empty.

    Raises:
        RequestError: the name, the folder or a contestant's name is wrong.
        RunError: one of ours failed.
        OutputError: the JSON cannot be written.
    """
    benches = [choose(bench, only) for bench in find_benches(name)]
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
    outcomes = []
    for bench in benches:
        outcomes.append(measure(bench, data, seconds, rounds, progress))
        print_table(outcomes[-1], table)
        if json_file is not None:
            write_json(document(name, outcomes, found), json_file)


def choose(bench: Bench, only: Sequence[str]) -> Bench:
    """Keep the contestants that were asked for."""
    names = [contestant.who for contestant in bench.contestants]
    for who in only:
        if who not in names:
            hint = did_you_mean(who, names) or f"name some of {', '.join(names)}"
            raise RequestError(f"--only: expected a contestant of {bench.name}, got {who!r}; {hint}")
    chosen = tuple(contestant for contestant in bench.contestants if not only or contestant.who in only)
    return replace(bench, contestants=chosen)


def measure(bench: Bench, data: Path, seconds: float, rounds: int, progress: Console) -> Outcome:
    """Run one benchmark in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="lightwell-bench-") as scratch:
        progress.print(f"{bench.name}: preparing")
        photos = bench.prepare(data, Path(scratch))
        work = Work(photos, scratch, bench.batch_size, seconds)
        num_rounds = 1 if bench.settles_at_once else rounds
        runs, left_out = take_turns(bench, work, num_rounds, progress.print)
        return Outcome(bench, runs, left_out, len(photos), seconds)
