"""What a benchmark is, and its arithmetic."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

NUM_WORKERS = 2
"""Worker processes or threads that every contestant may have."""
SIDE = 224
"""Pixels of the square that every contestant cuts and resizes to."""

Output = Literal["uint8", "float32", "decoded"]
"""uint8 in either layout; float32 NCHW normalised, in any memory order; or nothing but the decoding."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a contestant is given; it goes to its process as JSON."""

    photos: tuple[str, ...]
    """Absolute paths, all directly in one folder that holds nothing else."""
    scratch: str
    """A folder where contestants may keep what they make once, such as shards; gone after the benchmark."""
    batch_size: int
    seconds: float
    """How long a run is measured, after its warm stretch."""
    output: Output = "uint8"


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to do the work."""

    who: str
    """Its name in the table; rows that yield uint8 end in `` uint8``."""
    target: str
    """``module:function`` below ``benchmarks.contestants``: from ``Work`` to batches, or to the value itself."""
    output: Output = "uint8"
    needs: str = ""
    """Package without which it is left out."""
    unit: str = ""
    """Of the value that it returns itself, where that is not the benchmark's."""

    @property
    def is_ours(self) -> bool:
        """Whether its failure is ours and ends the benchmark."""
        return self.who.startswith("ours")


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours divided by another, or by a fixed figure."""

    key: str
    ours: str
    other: str | float


@dataclass(frozen=True, slots=True)
class Bench:
    """One benchmark."""

    name: str
    about: str
    """What everyone does, in a line that stands above the table."""
    unit: str
    contestants: tuple[Contestant, ...]
    ratios: tuple[Ratio, ...]
    prepare: Callable[[Path, Path], tuple[str, ...]]
    """From the user's folder and an empty one of ours to the pictures that all contestants read."""
    batch_size: int = 64
    streams: bool = True
    """Contestants yield batches, whose pace is measured; False: they return the value."""
    settles_at_once: bool = False
    """One round says it all, as with accuracy: there is no chance and no clock in the value."""


@dataclass(frozen=True, slots=True)
class Runs:
    """All values of one contestant, in the order of the rounds."""

    who: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)


def figure(value: float) -> str:
    """Write a value with the digits that can be read from it: 1,908 images/s, 75.35 percent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def median_ratio(ours: Runs, other: Runs | float) -> float:
    """Divide round by round and take the median, so that a machine that slows down slows both sides."""
    others = (other,) * len(ours.values) if isinstance(other, float) else other.values
    return statistics.median(mine / theirs for mine, theirs in zip(ours.values, others, strict=True))


def all_ratios(wanted: Iterable[Ratio], runs: Mapping[str, Runs]) -> dict[str, float]:
    """Work out the ratios of which both sides ran."""
    found = {}
    for ratio in wanted:
        other = runs.get(ratio.other) if isinstance(ratio.other, str) else float(ratio.other)
        if ratio.ours in runs and other is not None:
            found[ratio.key] = median_ratio(runs[ratio.ours], other)
    return found
