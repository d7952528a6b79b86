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

from .contest import Bench, Runs, all_ratios, figure
from .turns import TESTS

PACKAGES = (
    "lightwell", "albumentations", "numpy", "nvidia-dali-cuda130", "opencv-python-headless", "pillow", "ray",
    "spdl-core", "torch", "torchdata", "torchvision", "webdataset",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one benchmark."""

    bench: Bench
    runs: Mapping[str, Runs]
    left_out: Mapping[str, str]
    num_photos: int
    seconds: float

    @property
    def ratios(self) -> dict[str, float]:
        """Ours divided by the others."""
        return all_ratios(self.bench.ratios, self.runs)


def document(name: str, outcomes: Sequence[Outcome], machine: Mapping[str, Any]) -> dict[str, Any]:
    """Put outcomes into one document; in that of ``all``, names begin with the benchmark's."""
    runs, ratios, left_out, settings = [], {}, {}, {}
    for outcome in outcomes:
        start = f"{outcome.bench.name} " if name == "all" else ""
        runs += [
            {"who": f"{start}{run.who}", "unit": run.unit, "values": list(run.values), "median": run.median}
            for run in outcome.runs.values()
        ]
        ratios.update({f"{start}{key}": value for key, value in outcome.ratios.items()})
        left_out.update({f"{start}{who}": reason for who, reason in outcome.left_out.items()})
        settings[outcome.bench.name] = {
            "about": outcome.bench.about,
            "files": outcome.num_photos,
            "seconds": outcome.seconds,
        }
    return {
        "name": name,
        "machine": dict(machine),
        "versions": versions(),
        "settings": settings,
        "runs": runs,
        "ratios": ratios,
        "left_out": left_out,
    }


def print_table(outcome: Outcome, console: Console) -> None:
    """Print an outcome: the fastest first, and beside each peer how many times as fast we are."""
    table = Table(
        "who", "median", "least", "most", "ours / this", box=None, header_style="bold", pad_edge=False
    )
    for column in table.columns[1:]:
        column.justify = "right"
    ratios = outcome.ratios
    by_other = {
        str(ratio.other): f"{ratios[ratio.key]:.2f}" for ratio in outcome.bench.ratios if ratio.key in ratios
    }
    if "floor uint8" in ratios:
        by_other["floor"] = f"{ratios.get('floor', float('nan')):.2f}, uint8 {ratios['floor uint8']:.2f}"
    for run in sorted(outcome.runs.values(), key=lambda run: -run.median):
        figures = [figure(value) for value in (run.median, min(run.values), max(run.values))]
        who = run.who if run.unit == outcome.bench.unit else f"{run.who} ({run.unit})"
        table.add_row(who, *figures, by_other.get(run.who, ""))
    for ratio in outcome.bench.ratios:
        if isinstance(ratio.other, float) and ratio.key in ratios:
            table.add_row(ratio.key, figure(ratio.other), "", "", f"{ratios[ratio.key]:.2f}")
    for who, reason in outcome.left_out.items():
        table.add_row(who, "left out:", "", "", reason)
    console.print(f"\n{outcome.bench.name}, {outcome.bench.unit}: {outcome.bench.about}")
    console.print(table)


def check_writable(path: Path) -> None:
    """Learn now, and not after an hour, that a file cannot be written.

    Raises:
        OutputError: it cannot.
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
    """Write JSON aside, then rename."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)


def machine() -> dict[str, Any]:
    """Describe the machine, and how busy it was when the benchmark started."""
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_at_start": os.getloadavg()[0],
    }


def cpu_name() -> str:
    """Name the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions() -> dict[str, str]:
    """List what was measured, with the commit of the checkout; ``+`` means changed since."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    git = ["git", "-C", str(TESTS), "describe", "--always", "--dirty=+", "--abbrev=12"]
    done = subprocess.run(git, check=False, capture_output=True, text=True)
    return {**found, "commit": done.stdout.strip()} if done.returncode == 0 else found
