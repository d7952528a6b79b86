"""What a benchmark leaves: a table for people, JSON for machines, both with the machine and the versions."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lightwell.pipeline.errors import OutputError
from rich.console import Console
from rich.table import Table

from .benchmark import Benchmark, Runs, compute_ratios, format_value
from .runner import TESTS

PACKAGES = (
    "lightwell", "albumentations", "numpy", "nvidia-dali-cuda130", "opencv-python-headless", "pillow", "ray",
    "spdl-core", "torch", "torchdata", "torchvision", "webdataset",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """Results of one benchmark."""

    bench: Benchmark
    runs: Mapping[str, Runs]
    left_out: Mapping[str, str]
    num_photos: int
    seconds: float
    details: Sequence[Mapping[str, str | float]] = ()
    """Rows of a further table."""

    @property
    def ratios(self) -> dict[str, float]:
        """Ratios of Lightwell to the others."""
        return compute_ratios(self.bench.ratios, self.runs)


def document(name: str, results: Sequence[BenchmarkResult], machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results as one JSON document; for ``all``, names are prefixed with that of the benchmark."""
    runs, ratios, left_out, settings = [], {}, {}, {}
    for result in results:
        start = f"{result.bench.name} " if name == "all" else ""
        runs += [
            {"who": f"{start}{run.name}", "unit": run.unit, "values": list(run.values), "median": run.median}
            for run in result.runs.values()
        ]
        ratios.update({f"{start}{key}": value for key, value in result.ratios.items()})
        left_out.update({f"{start}{name}": reason for name, reason in result.left_out.items()})
        settings[result.bench.name] = {
            "about": result.bench.about,
            "files": result.num_photos,
            "seconds": result.seconds,
        }
    details = {result.bench.name: list(result.details) for result in results if result.details}
    return {
        "name": name,
        "machine": dict(machine),
        "versions": versions(),
        "settings": settings,
        "runs": runs,
        "ratios": ratios,
        "left_out": left_out,
        **({"details": details} if details else {}),
    }


def print_table(result: BenchmarkResult, console: Console) -> None:
    """Print results, fastest first, with the ratio of Lightwell to each contestant."""
    table = Table(
        "name", "median", "min", "max", "ours / this", box=None, header_style="bold", pad_edge=False
    )
    for column in table.columns[1:]:
        column.justify = "right"
    ratios = result.ratios
    by_other = {
        str(ratio.other): f"{ratios[ratio.key]:.2f}" for ratio in result.bench.ratios if ratio.key in ratios
    }
    if "floor uint8" in ratios:
        by_other["floor"] = f"{ratios.get('floor', float('nan')):.2f}, uint8 {ratios['floor uint8']:.2f}"
    for run in sorted(result.runs.values(), key=lambda run: -run.median):
        figures = [format_value(value) for value in (run.median, min(run.values), max(run.values))]
        name = run.name if run.unit == result.bench.unit else f"{run.name} ({run.unit})"
        table.add_row(name, *figures, by_other.get(run.name, ""))
    for ratio in result.bench.ratios:
        if isinstance(ratio.other, float) and ratio.key in ratios:
            table.add_row(ratio.key, format_value(ratio.other), "", "", f"{ratios[ratio.key]:.2f}")
    for name, reason in result.left_out.items():
        table.add_row(name, "left out:", "", "", reason)
    console.print(f"\n{result.bench.name}, {result.bench.unit}: {result.bench.about}")
    console.print(table)
    if result.details:
        more = Table(*result.details[0], box=None, header_style="bold", pad_edge=False)
        for row in result.details:
            more.add_row(*(each if isinstance(each, str) else format_value(each) for each in row.values()))
        console.print("\n", more)


def check_writable(path: Path) -> None:
    """Check that a file can be written, before the benchmarks run.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(
            f"--json: expected a file that can be written, got {str(path)!r} ({error.strerror}); choose another"
        ) from error
    if path.is_dir():
        raise OutputError(f"--json: expected a file, got the folder {str(path)!r}; name a file in it")


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write JSON to a temporary file, then rename it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)


def machine() -> dict[str, Any]:
    """Describe the machine and its load at the start."""
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_at_start": os.getloadavg()[0],
    }


def cpu_name() -> str:
    """Return the name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions() -> dict[str, str]:
    """Return package versions and the commit of the checkout, with ``+`` if modified."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    git = ["git", "-C", str(TESTS), "describe", "--always", "--dirty=+", "--abbrev=12"]
    done = subprocess.run(git, check=False, capture_output=True, text=True)
    return {**found, "commit": done.stdout.strip()} if done.returncode == 0 else found
