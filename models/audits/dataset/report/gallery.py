"""Images of the page, each with its thumbnail, class, split and findings."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from ..picture_stage import upright_sizes

if TYPE_CHECKING:
    from ...findings.finding import Finding

_FACTS = ("key", "class", "split")


@dataclass(frozen=True, slots=True)
class Shot:
    """An image with its thumbnail."""

    number: int
    """Of the picture in the page."""
    key: str
    uri: str
    label: str
    """Name of its class; empty without a single one."""
    split: str
    size: str
    findings: tuple[Finding, ...]
    """Those whose images it is one of."""

    @property
    def kinds(self) -> dict[str, list[Finding]]:
        """Its findings by kind, the most severe first."""
        found: dict[str, list[Finding]] = {}
        for finding in self.findings:
            found.setdefault(finding.kind, []).append(finding)
        return found


def take_shots(pictures: pa.Table, records: pa.Table, found: Sequence[Finding]) -> dict[str, Shot]:
    """Return the images that have a thumbnail, by key.

    Args:
        pictures: records of the stage ``pictures``.
        records: of the stage ``records``.
        found: findings, the most severe first.
    """
    own = pc.is_in(records["key"], value_set=pictures["key"].combine_chunks())
    facts = {row["key"]: row for row in records.filter(own).select(_FACTS).to_pylist()}
    sizes = upright_sizes(records, pictures["key"].to_pylist())
    concerned: dict[str, list[Finding]] = {}
    for finding in found:
        for key in finding.keys:
            concerned.setdefault(key, []).append(finding)
    shots = {}
    for number, (key, jpeg) in enumerate(
        zip(pictures["key"].to_pylist(), pictures["jpeg"].to_pylist(), strict=True)
    ):
        row, (height, width) = facts[key], sizes[key]
        shots[key] = Shot(
            number=number,
            key=key,
            uri=f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}",
            label=row["class"] or "",
            split=row["split"] or "",
            size=f"{width} × {height}",  # noqa: RUF001
            findings=tuple(concerned.get(key, ())),
        )
    return shots


def shots_of(keys: Sequence[str], shots: Mapping[str, Shot], num: int) -> tuple[Shot, ...]:
    """Return the images of the first ``num`` keys that have a thumbnail."""
    return tuple(shots[key] for key in keys[:num] if key in shots)
