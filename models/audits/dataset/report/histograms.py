"""Histograms of measures, with marks at the values of findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...findings.finding import DatasetKind, Finding

WIDTH, HEIGHT = 240, 64
"""Size of a histogram in units of its drawing."""
MARKED: frozenset[DatasetKind] = frozenset({"quality", "odd_file", "predictive_property", "suspected_label"})
"""Kinds of findings whose images have something in common that a measure may show."""
EXTREME = 0.05
"""Share of the images on either side beyond which values are extreme."""
MIN_IMAGES = 3
"""Findings on fewer images have a mark only where these are at an end of the histogram."""
MAX_MARKS = 4
MAX_TEXT = 64
"""Characters of a mark's text."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where the images of a finding lie, half of them beyond."""

    x: float
    value: str
    finding: Finding
    text: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """Bars of a histogram, and marks on it."""

    name: str
    low: str
    high: str
    median: str
    bars: tuple[tuple[float, float, float], ...]
    """x, y and height of each."""
    bar_width: float
    marks: tuple[Mark, ...]


def draw_histograms(
    distributions: Mapping[str, Any], found: Sequence[Finding], records: pa.Table
) -> list[Histogram]:
    """Draw ``summary.distributions`` with marks at findings whose listed images have extreme values of the measure.

    Args:
        distributions: by name of the measure.
        found: findings, the most severe first.
        records: of the stage ``records``.
    """
    keys = records["key"].combine_chunks()
    marked = [(each, _places(each, keys)) for each in found if each.kind in MARKED and each.keys]
    drawn = []
    for name, distribution in distributions.items():
        values = np.asarray(records[name].cast(pa.float64()).to_numpy(), np.float64)
        counts = distribution["counts"]
        width = WIDTH / len(counts)
        heights = [HEIGHT * count / max(counts) for count in counts]
        low, high, median = (f"{distribution[limit]:.4g}" for limit in ("low", "high", "median"))
        drawn.append(
            Histogram(
                name=name.replace("_", " "),
                low=low,
                high=high,
                median=median,
                bars=tuple(
                    (round(place * width, 2), round(HEIGHT - height, 2), round(height, 2))
                    for place, height in enumerate(heights)
                ),
                bar_width=round(width - 1, 2),
                marks=tuple(_marks(distribution, values, marked)),
            )
        )
    return drawn


def _places(finding: Finding, keys: pa.Array) -> NDArray[np.int64]:
    places = pc.index_in(pa.array(finding.keys, pa.string()), value_set=keys)
    return np.asarray(places.drop_null().to_numpy(), np.int64)


def _marks(
    distribution: Mapping[str, Any],
    values: NDArray[np.float64],
    marked: Sequence[tuple[Finding, NDArray[np.int64]]],
) -> list[Mark]:
    low, high = distribution["low"], distribution["high"]
    least, most = np.nanquantile(values, (EXTREME, 1 - EXTREME))
    marks = []
    for finding, places in marked:
        own = values[places]
        own = own[np.isfinite(own)]
        middle = float(np.median(own)) if len(own) else np.nan
        is_marked = len(own) >= MIN_IMAGES or middle <= low or middle >= high
        if is_marked and (middle < least or middle > most):
            x = WIDTH * (min(max(middle, low), high) - low) / (high - low)
            sentence = finding.sentence
            text = sentence if len(sentence) <= MAX_TEXT else f"{sentence[: MAX_TEXT - 1].rstrip()}…"
            marks.append(Mark(round(x, 2), f"{middle:.4g}", finding, text))
    return marks[:MAX_MARKS]
