"""Classes in the report: counts, recall, precision, mean maps and findings of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...findings.finding import SEVERITIES
from ..pictures import heat_picture, mean_map
from ..records import maps_array

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from ...findings.finding import Finding

MAX_SECTIONS = 40
"""Classes with a section of their own; the others are in the table."""
MAX_ROWS = 1000
"""Classes in the table."""
MIN_MEAN = 5
"""Minimum number of maps for a mean map."""


@dataclass(frozen=True, slots=True)
class ClassEntry:
    """One class."""

    facts: Mapping[str, Any]
    """Its entry of ``per_class`` in findings.json."""
    findings: tuple[Finding, ...]
    has_section: bool = False
    """Among those with a section of their own; the others are in the table only."""
    means: tuple[tuple[str, str], ...] = ()
    """Mean maps as data URIs, with the images that they are of."""

    @property
    def severity(self) -> str:
        """The worst severity of its findings; empty without findings."""
        return min((finding.severity for finding in self.findings), key=SEVERITIES.index, default="")


def class_entries(
    records: pa.Table, facts: Mapping[str, Any], findings: Sequence[Finding]
) -> list[ClassEntry]:
    """Return the classes, those with the worst findings first, then the largest; the first with mean maps."""
    by_class: dict[int, list[Finding]] = {}
    for finding in findings:
        by_class.setdefault(finding.class_number, []).append(finding)
    entries = [ClassEntry(each, tuple(by_class.get(each["number"], ()))) for each in facts["per_class"]]
    entries.sort(
        key=lambda entry: (
            SEVERITIES.index(entry.severity) if entry.severity else len(SEVERITIES),
            -entry.facts["num_images"],
            entry.facts["number"],
        )
    )
    labels, predictions = records["label"].to_numpy(), records["prediction"].to_numpy()
    maps, maps_true = (maps_array(records, name, rectified=True) for name in ("map", "map_true"))
    drawn = [
        ClassEntry(
            entry.facts,
            entry.findings,
            True,
            mean_pictures(
                nonempty_maps(maps_true, labels == entry.facts["number"]),
                nonempty_maps(maps, predictions == entry.facts["number"]),
            ),
        )
        for entry in entries[:MAX_SECTIONS]
    ]
    return drawn + entries[MAX_SECTIONS:MAX_ROWS]


def overall_means(records: pa.Table) -> tuple[tuple[str, str], ...]:
    """Return the mean maps of all images."""
    everything = np.ones(len(records), np.bool_)
    maps, maps_true = (maps_array(records, name, rectified=True) for name in ("map", "map_true"))
    return mean_pictures(nonempty_maps(maps_true, everything), nonempty_maps(maps, everything))


def mean_pictures(own: NDArray[np.float32], predicted_as: NDArray[np.float32]) -> tuple[tuple[str, str], ...]:
    """Draw the mean map by label and that by prediction, if there are enough maps."""
    return tuple(
        (heat_picture(mean_map(small)), f"{how} ({len(small):,})")
        for how, small in (("by label", own), ("by prediction", predicted_as))
        if len(small) >= MIN_MEAN
    )


def nonempty_maps(maps: NDArray[np.float32], chosen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the selected maps that are not empty, of maps (N, h, w) with NaN where there is none."""
    picked = maps[chosen]
    return np.asarray(picked[np.nan_to_num(picked).max(axis=(1, 2), initial=0) > 0])
