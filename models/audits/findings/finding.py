"""Findings of an audit: one schema for suspicions and for results, as Arrow records and as JSON.

A row of the records and an entry of ``findings.json`` have the same names and nesting. An effect, a region or an advice that
a finding does not have is null.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

ModelKind = Literal[
    "region", "cluster", "frame", "profile", "slice", "confident_error", "suspected_label", "leakage"
]
"""Found by an audit of a model; leakage only with an audit of its dataset."""
DatasetKind = Literal[
    "unreadable",
    "odd_file",
    "quality",
    "exact_duplicate",
    "near_duplicate",
    "leakage",
    "class_balance",
    "drift",
    "outlier",
    "coverage",
    "domain_gap",
    "suspected_label",
    "predictive_property",
    "sample_order",
    "learning_curve",
    "plan_effect",
    "preprocessing",
]
"""Found by an audit of a dataset."""
Kind = ModelKind | DatasetKind
Severity = Literal["high", "medium", "low", "note"]
Status = Literal["confirmed", "refuted", "not testable", "not tested"]
MODEL_KINDS: tuple[ModelKind, ...] = get_args(ModelKind)
DATASET_KINDS: tuple[DatasetKind, ...] = get_args(DatasetKind)
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""Most severe first."""
MAX_KEYS = 24
"""Maximum number of keys listed with a finding."""


@dataclass(frozen=True, slots=True)
class Effect:
    """A number with its 95 % interval."""

    value: float
    unit: str
    """For example ``share of images`` or ``probability``."""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Null:
    """What chance alone would give."""

    expected: float | None
    """The effect expected by chance, in its unit."""
    p: float | None = None
    q: float | None = None
    """Smallest false-discovery rate at which it is reported (Benjamini and Hochberg 1995)."""


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the model's input, as weights on a small grid."""

    name: str
    """In words, for example ``lower left corner``."""
    height: int
    width: int
    cells: tuple[float, ...]
    """Row-major, 0 (outside) to 1 (inside), length ``height * width``."""

    @property
    def weights(self) -> NDArray[np.float32]:
        """The cells as an array (height, width)."""
        return np.asarray(self.cells, np.float32).reshape(self.height, self.width)

    @classmethod
    def from_weights(cls, name: str, weights: NDArray[np.floating[Any]]) -> Self:
        """Create a region from an array (height, width) of values in 0..1."""
        height, width = weights.shape
        return cls(name, height, width, tuple(np.asarray(weights, np.float32).ravel().tolist()))


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What changing the region's pixels did to the probability of the class."""

    status: Status = "not tested"
    drop: Effect | None = None
    """Decrease of the probability after the region is removed from images that show the finding."""
    control_drop: float | None = None
    """The same for a control region of equal area."""
    paste: Effect | None = None
    """Increase of the probability after the region's pixels are pasted into other images."""
    paste_control: float | None = None
    """The same for the pixels of the control region."""
    flip_rate: Effect | None = None
    """Share of those other images that are then predicted as the class."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about a finding."""

    text: str
    yaml: str = ""
    """Lines for the plan or the index; empty if there are none."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that an audit suspects or found, with its evidence."""

    id: str
    """Stable between runs: see `finding_id`."""
    kind: Kind
    severity: Severity
    class_name: str | None
    class_number: int
    """-1 if it concerns no single class."""
    group: str | None
    """``column = value`` if it concerns only these images."""
    sentence: str
    effect: Effect
    null: Null
    num_images: int
    """Images among which it was looked for."""
    num_concerned: int
    """Images that show it."""
    keys: tuple[str, ...]
    """Images that show it, the strongest first; at most `MAX_KEYS`."""
    other_keys: tuple[str, ...] = ()
    """Images to compare with; at most `MAX_KEYS`."""
    region: Region | None = None
    confirmation: Confirmation = Confirmation()
    advice: Advice | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        fields = asdict(self)
        return fields | {"keys": list(self.keys), "other_keys": list(self.other_keys)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Create a finding from the values of `to_dict` or of a row of the records."""
        found, region = fields["confirmation"], fields["region"]
        effects = {name: _effect(found[name]) for name in ("drop", "paste", "flip_rate")}
        return cls(
            **{
                **fields,
                "effect": Effect(**fields["effect"]),
                "null": Null(**fields["null"]),
                "keys": tuple(fields["keys"]),
                "other_keys": tuple(fields["other_keys"]),
                "region": None if region is None else Region(**{**region, "cells": tuple(region["cells"])}),
                "confirmation": Confirmation(**{**found, **effects}),
                "advice": None if fields["advice"] is None else Advice(**fields["advice"]),
            }
        )


def _effect(fields: Mapping[str, Any] | None) -> Effect | None:
    return None if fields is None else Effect(**fields)


_EFFECT = pa.struct(
    {"value": pa.float64(), "unit": pa.string(), "low": pa.float64(), "high": pa.float64()},
)
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "kind": pa.string(),
        "severity": pa.string(),
        "class_name": pa.string(),
        "class_number": pa.int64(),
        "group": pa.string(),
        "sentence": pa.string(),
        "effect": _EFFECT,
        "null": pa.struct({"expected": pa.float64(), "p": pa.float64(), "q": pa.float64()}),
        "num_images": pa.int64(),
        "num_concerned": pa.int64(),
        "keys": pa.list_(pa.string()),
        "other_keys": pa.list_(pa.string()),
        "region": pa.struct(
            {
                "name": pa.string(),
                "height": pa.int64(),
                "width": pa.int64(),
                "cells": pa.list_(pa.float32()),
            }
        ),
        "confirmation": pa.struct(
            {
                "status": pa.string(),
                "drop": _EFFECT,
                "control_drop": pa.float64(),
                "paste": _EFFECT,
                "paste_control": pa.float64(),
                "flip_rate": _EFFECT,
            }
        ),
        "advice": pa.struct({"text": pa.string(), "yaml": pa.string()}),
    }
)
"""Records of findings, one per row; columns are the fields of `Finding`."""


def findings_batch(findings: Iterable[Finding]) -> pa.RecordBatch:
    """Return findings as records."""
    return pa.RecordBatch.from_pylist([finding.to_dict() for finding in findings], schema=SCHEMA)


def read_findings(records: pa.Table | pa.RecordBatch) -> tuple[Finding, ...]:
    """Return the findings of records, which may have further columns."""
    return tuple(Finding.from_dict(row) for row in records.select(SCHEMA.names).to_pylist())


def finding_id(kind: Kind, subject: str, region: Region | None = None) -> str:
    """Return an id of a finding by its subject, the same in another run.

    Args:
        kind: of the finding.
        subject: class, group and whatever else distinguishes findings of a kind.
        region: its cells count as inside or outside.
    """
    cells = None if region is None else [region.height, region.width, [c >= 0.5 for c in region.cells]]
    text = json.dumps([kind, subject, cells])
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
