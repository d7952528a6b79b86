"""Benchmarks, contestants, and ratios of their results."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

NUM_WORKERS = 2
"""Worker processes or threads of every contestant."""
SIDE = 224
"""Side in pixels of the square output image."""

Output = Literal["uint8", "float32", "decoded"]
"""uint8 in either layout; normalised float32 NCHW in any memory order; or decoding only."""


@dataclass(frozen=True, slots=True)
class Work:
    """Input of a contestant, passed to its process as JSON."""

    photos: tuple[str, ...]
    """Absolute paths of all files in one folder."""
    scratch: str
    """Temporary folder for files that contestants create once, such as shards."""
    batch_size: int
    seconds: float
    """Measured duration of a run, after the warm-up."""
    output: Output = "uint8"


@dataclass(frozen=True, slots=True)
class Contestant:
    """One implementation of the workload."""

    name: str
    """Name in the table; ends in `` uint8`` for uint8 output."""
    target: str
    """``module:function`` in ``benchmarks.contestants``, from ``Work`` to batches or to the value."""
    output: Output = "uint8"
    needs: str = ""
    """Required package; the contestant is left out without it."""
    unit: str = ""
    """Unit of the value it returns, if different from that of the benchmark."""

    @property
    def is_lightwell(self) -> bool:
        """Whether it measures Lightwell, so that its failure aborts the benchmark."""
        return self.name.startswith("ours")


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ratio of Lightwell to another contestant or to a fixed value."""

    key: str
    ours: str
    other: str | float


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark: workload, contestants and ratios."""

    name: str
    about: str
    """Description of the workload, printed above the table."""
    unit: str
    contestants: tuple[Contestant, ...]
    ratios: tuple[Ratio, ...]
    prepare: Callable[[Path, Path], tuple[str, ...]]
    """(folder of the user, empty scratch folder) -> photos that all contestants read."""
    batch_size: int = 64
    streams: bool = True
    """Contestants yield batches, whose throughput is measured; if False, they return the value."""
    details: Callable[[Path], list[dict[str, str | float]]] | None = None
    """Rows of a further table, from the scratch folder; all have the same keys."""
    is_deterministic: bool = False
    """One round is enough, since the value is not a timing and not random."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Values of one contestant, in order of the rounds."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median value."""
        return statistics.median(self.values)


def format_value(value: float) -> str:
    """Format a value with four significant digits, or as an integer from 100: 1,908 or 75.35."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def median_ratio(ours: Runs, other: Runs | float) -> float:
    """Return the median of the ratios of each round, so that load on the machine affects both sides."""
    others = (other,) * len(ours.values) if isinstance(other, float) else other.values
    return statistics.median(mine / theirs for mine, theirs in zip(ours.values, others, strict=True))


def compute_ratios(wanted: Iterable[Ratio], runs: Mapping[str, Runs]) -> dict[str, float]:
    """Compute the ratios for which both sides have values."""
    found = {}
    for ratio in wanted:
        other = runs.get(ratio.other) if isinstance(ratio.other, str) else float(ratio.other)
        if ratio.ours in runs and other is not None:
            found[ratio.key] = median_ratio(runs[ratio.ours], other)
    return found
