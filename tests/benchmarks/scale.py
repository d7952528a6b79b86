"""How far schedule, index, quarantine and driver reach: ``python -m benchmarks.scale``, from ``tests``.

Measures at sizes that fit this machine and works out a billion samples and a thousand workers by the formulas below, each
linear in what was measured at the largest size. Prints Markdown tables, which deploy/SCALING.md shows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightwell.workers.ray.engine import NUM_BATCHES
from lightwell.workers.ray.stream import TASKS_PER_SLOT

from .report import check_writable, machine, versions, write_json
from .runner import TESTS
from .scale_parts import BATCH, index_of, mapped_of

SAMPLES, WORKERS = 10**9, 1000
PARTS = ("write", "load", "make_mapped", "mapped", "fingerprint", "schedule")
"""What is measured at each number of rows."""
PACE = 900.0
"""Images a second that one worker makes; an assumption, about what one core decodes."""
BAD_SHARE = 0.001
"""Of all files; an assumption."""
PIXELS = 224 * 224 * 3
Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Outlook:
    """One quantity at full size."""

    what: str
    formula: str
    unit: str
    of: Callable[[Figures], float]
    """From what was measured at the largest size."""


GB = 1e9
OUTLOOKS = (
    Outlook("index, as Parquet", "bytes a row x 1e9", "GB", lambda f: f["parquet_bytes_per_row"] * SAMPLES / GB),
    Outlook("index, in memory", "bytes a row x 1e9", "GB", lambda f: f["index_bytes_per_row"] * SAMPLES / GB),
    Outlook("index, while it is loaded", "peak bytes a row x 1e9", "GB", lambda f: f["load_peak_bytes_per_row"] * SAMPLES / GB),
    Outlook("loading it", "CPU seconds a row x 1e9", "s", lambda f: f["load_cpu_s"] / f["rows"] * SAMPLES),
    Outlook("its fingerprint", "CPU seconds a row x 1e9", "s", lambda f: f["fingerprint_cpu_s"] / f["rows"] * SAMPLES),
    Outlook("its fingerprint, memory", "peak bytes a row x 1e9", "GB", lambda f: f["fingerprint_peak_bytes_per_row"] * SAMPLES / GB),
    Outlook("index, mapped: its file, on a node", "bytes a row x 1e9", "GB", lambda f: f["mapped_file_bytes_per_row"] * SAMPLES / GB),
    Outlook("making that file, once for a node", "CPU seconds a row x 1e9", "s", lambda f: f["map_cpu_s"] / f["rows"] * SAMPLES),
    Outlook("opening it, and its fingerprint", "measured at the largest size", "ms", lambda f: f["mapped_open_cpu_s"] * 1e3),
    Outlook("its rows of a batch", "measured in as many chunks as 1e9 rows have", "ms", lambda f: f["mapped_batch_cpu_s"] * 1e3),
    Outlook("index, sizes and split, a worker's own memory", "bytes a row x 1e9", "GB", lambda f: f["mapped_own_bytes_per_row"] * SAMPLES / GB),
    Outlook("rows of a split", "8 bytes x 1e9", "GB", lambda f: f["split_bytes_per_row"] * SAMPLES / GB),
    Outlook("rows of a batch, by its number", "measured at 1e9 places", "ms", lambda f: f["permutation_batch_cpu_s"] * 1e3),
    Outlook("an epoch's order", "measured at 1e9 places", "bytes", lambda f: f["permutation_bytes"]),
    Outlook("going on from a position", "constant", "ms", lambda f: f["resume_cpu_s"] * 1e3),
    Outlook("a position", "constant", "bytes", lambda f: f["position_bytes"]),
    Outlook(f"quarantine, {BAD_SHARE:.1%} bad, its file", "bytes a bad file x 1e6", "GB",
            lambda f: f["quarantine_file_bytes_per_bad"] * SAMPLES * BAD_SHARE / GB),
    Outlook("quarantine, in the driver's memory", "bytes a bad file x 1e6", "GB",
            lambda f: f["quarantine_memory_bytes_per_bad"] * SAMPLES * BAD_SHARE / GB),
    Outlook("quarantine, writing it once", "CPU seconds a bad file x 1e6", "s",
            lambda f: f["quarantine_write_cpu_s_per_bad"] * SAMPLES * BAD_SHARE),
    Outlook("quarantine, writing what a second adds", f"CPU seconds a bad file x 1,000 workers x {PACE:.0f} x {BAD_SHARE}", "s",
            lambda f: f["quarantine_append_cpu_s_per_bad"] * WORKERS * PACE * BAD_SHARE),
    Outlook("batches of an epoch", f"1e9 / {BATCH}", "", lambda f: SAMPLES / BATCH),
    Outlook("driver, all batches of an epoch", "CPU seconds a batch x batches", "h",
            lambda f: f["driver_cpu_s_per_batch"] * SAMPLES / BATCH / 3600),
    Outlook("one driver at most", "1 / CPU seconds a batch x 256", "images/s", lambda f: BATCH / f["driver_cpu_s_per_batch"]),
    Outlook("workers that one driver keeps busy", f"that / {PACE:.0f} images/s a worker", "",
            lambda f: BATCH / f["driver_cpu_s_per_batch"] / PACE),
    Outlook("drivers that 1,000 workers need", "1,000 / that", "", lambda f: WORKERS * PACE * f["driver_cpu_s_per_batch"] / BATCH),
    Outlook("object store, at most", f"1,000 workers x {TASKS_PER_SLOT * NUM_BATCHES} x 256 x 224 x 224 x 3 bytes", "GB",
            lambda f: WORKERS * TASKS_PER_SLOT * NUM_BATCHES * (BATCH * PIXELS + f["moved_bytes_per_batch_beside_pixels"]) / GB),
)  # fmt: skip


def measure(part: str, size: int, scratch: Path) -> Figures:
    """Measure one part in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale_parts", part, str(size), str(scratch)]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{part} at {size:,} failed: {done.stderr[-2000:]}")
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_all(
    sizes: Sequence[int], num_bad: int, workers: Sequence[int], scratch: Path
) -> dict[str, Figures]:
    """Measure all parts: those of rows at each size, the others once."""
    found: dict[str, Figures] = {}
    for size in sizes:
        parts = [measure(part, size, scratch) for part in PARTS]
        found[f"{size:,} rows"] = {
            "rows": size,
            **{name: value for part in parts for name, value in part.items()},
        }
        for path in (index_of(size, scratch), mapped_of(size, scratch)):
            path.unlink()
    found[f"{SAMPLES:,} places"] = measure("permutation", SAMPLES, scratch)
    found[f"{num_bad:,} bad files"] = measure("quarantine", num_bad, scratch)
    for number in workers:
        found[f"{number} workers"] = measure("ray_data", number, scratch)
    return found


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def format_value(value: float) -> str:
    """Write a value with three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"


def report(found: Mapping[str, Figures]) -> tuple[str, list[dict[str, object]]]:
    """Write what was measured and what it comes to."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, figures in found.items():
        groups.setdefault(tuple(key for key in figures if key != "rows"), []).append(name)
    tables = []
    for keys, names in groups.items():
        rows = [[key.replace("_", " "), *(format_value(found[name][key]) for name in names)] for key in keys]
        tables.append(table(["measured", *names], rows))
    largest: dict[str, float] = {}
    for figures in found.values():
        largest.update(figures)
    outlook = [(one, one.of(largest)) for one in OUTLOOKS]
    tables.append(
        table(
            ["at 1,000,000,000 samples and 1,000 workers", "comes to", "by"],
            [[one.what, f"{format_value(value)} {one.unit}".strip(), one.formula] for one, value in outlook],
        )
    )
    plain: list[dict[str, object]] = [
        {"what": one.what, "value": value, "unit": one.unit, "formula": one.formula} for one, value in outlook
    ]
    return "\n\n".join(tables), plain


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**6, 10**7], help="sizes of indexes")
    parser.add_argument("--bad", type=int, default=10**5, help="bad files")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8], help="workers on Ray")
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args(arguments)
    found_machine = machine()
    if given.json is not None:
        check_writable(given.json)
    with tempfile.TemporaryDirectory(prefix="lightwell-scale-") as scratch:
        found = measure_all(given.rows, given.bad, given.workers, Path(scratch))
    text, outlook = report(found)
    sys.stdout.write(
        f"{found_machine['cpu']}, {found_machine['cores']} cores; ray {versions()['ray']}\n\n{text}\n"
    )
    if given.json is not None:
        content = {
            "name": "scale",
            "machine": found_machine,
            "versions": versions(),
            "measured": found,
            "outlook": outlook,
        }
        write_json(content, given.json)


if __name__ == "__main__":
    main()
