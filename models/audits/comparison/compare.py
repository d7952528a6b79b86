"""Compare two audits: accuracy, classes and findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ....pipeline.errors import RequestError
from ....pipeline.rng import derive_seed, numpy_generator
from ..findings.fdr import q_values
from ..findings.finding import SEVERITIES, Finding
from .paired import Difference, paired_difference, unpaired_difference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .audit_result import AuditResult

COMPARISON_VERSION = 1
SAME_REGION = 0.5
"""Overlap (intersection over union) from which on the regions of two findings are the same place."""


@dataclass(frozen=True, slots=True)
class ClassChange:
    """Recall of a class, on the images of that label that both audits have."""

    name: str
    recall: Difference
    q: float
    """Of McNemar's test, over all classes (Benjamini and Hochberg 1995)."""
    border_mass: tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Stayed:
    """A finding of both audits."""

    first: Finding
    second: Finding

    @property
    def is_changed(self) -> bool:
        """The intervals of the effect do not overlap."""
        ends = [(effect.low, effect.high) for effect in (self.first.effect, self.second.effect)]
        (low_a, high_a), (low_b, high_b) = ends
        if low_a is None or high_a is None or low_b is None or high_b is None:
            return self.first.effect.value != self.second.effect.value
        return high_a < low_b or high_b < low_a

    @property
    def is_worse(self) -> bool:
        """The severity rose."""
        return SEVERITIES.index(self.second.severity) < SEVERITIES.index(self.first.severity)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between two audits."""

    same_images: bool
    """Both audits have the same index, by its fingerprint."""
    num_images: tuple[int, int]
    num_shared: int
    """Images with the same key."""
    num_relabelled: int
    """Shared images with another label, which no difference counts."""
    accuracy: tuple[float | None, float | None]
    paired: Difference | None
    """On the shared images with a label; None if there are none."""
    unpaired: Difference | None
    """On all images with a label, if they are not the same."""
    classes: tuple[ClassChange, ...]
    """The largest changes of recall first."""
    classes_gone: tuple[str, ...]
    classes_new: tuple[str, ...]
    appeared: tuple[Finding, ...]
    gone: tuple[Finding, ...]
    stayed: tuple[Stayed, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "comparison_version": COMPARISON_VERSION,
            **asdict(self),
            "appeared": [finding.to_dict() for finding in self.appeared],
            "gone": [finding.to_dict() for finding in self.gone],
            "stayed": [
                {
                    "first": pair.first.to_dict(),
                    "second": pair.second.to_dict(),
                    "is_changed": pair.is_changed,
                    "is_worse": pair.is_worse,
                }
                for pair in self.stayed
            ],
        }

    @property
    def new_severities(self) -> tuple[Finding, ...]:
        """Findings that appeared, or whose severity rose: those that a gate tests."""
        return (*self.appeared, *(pair.second for pair in self.stayed if pair.is_worse))


def compare(first: AuditResult, second: AuditResult) -> Comparison:
    """Compare two audits; images are matched by key, classes by name and findings by id.

    Raises:
        RequestError: one audits a model and the other a dataset.
    """
    if (first.right is None) != (second.right is None):
        raise RequestError(
            "expected two audits of models or two of datasets, got one of each; name two of one kind"
        )
    _, rows_a, rows_b = np.intersect1d(
        first.keys.astype(str), second.keys.astype(str), assume_unique=True, return_indices=True
    )
    (names_a, labelled_a), (names_b, labelled_b) = _label_names(first, rows_a), _label_names(second, rows_b)
    labelled = labelled_a & labelled_b
    usable = labelled & (names_a == names_b)
    stayed, appeared, gone = match_findings(first.findings, second.findings)
    return Comparison(
        same_images=first.index_fingerprint == second.index_fingerprint,
        num_images=(len(first.keys), len(second.keys)),
        num_shared=len(rows_a),
        num_relabelled=int((labelled & ~usable).sum()),
        **_scores(first, second, (rows_a[usable], rows_b[usable]), names_a[usable]),
        classes_gone=tuple(name for name in first.classes if name not in set(second.classes)),
        classes_new=tuple(name for name in second.classes if name not in set(first.classes)),
        appeared=appeared,
        gone=gone,
        stayed=stayed,
    )


def _scores(
    first: AuditResult,
    second: AuditResult,
    rows: tuple[NDArray[np.intp], NDArray[np.intp]],
    names: NDArray[np.str_],
) -> dict[str, Any]:
    """Compare what models have right on the given rows of each audit, and on all; nothing for audits of datasets."""
    if first.right is None or second.right is None:
        return {"accuracy": (None, None), "paired": None, "unpaired": None, "classes": ()}
    rights = first.right[rows[0]], second.right[rows[1]]
    labelled = [audit.labels >= 0 for audit in (first, second)]
    all_shared = [int(own.sum()) for own in labelled] == [len(names)] * 2
    return {
        "accuracy": (first.facts["accuracy"], second.facts["accuracy"]),
        "paired": paired_difference(*rights, _generator("accuracy")),
        "unpaired": None
        if all_shared
        else unpaired_difference(
            first.right[labelled[0]], second.right[labelled[1]], _generator("all images")
        ),
        "classes": _class_changes(first, second, names, *rights),
    }


def _generator(name: str) -> np.random.Generator:
    return numpy_generator(derive_seed("audit.comparison", 0, 0, name))


def _label_names(audit: AuditResult, rows: NDArray[np.intp]) -> tuple[NDArray[np.str_], NDArray[np.bool_]]:
    """Return the label of each row by name, and whether it counts."""
    labels = audit.labels[rows]
    labelled = (labels >= 0) & (labels < len(audit.classes))
    return np.asarray([*audit.classes, ""])[np.where(labelled, labels, -1)], labelled


def _class_changes(
    first: AuditResult,
    second: AuditResult,
    names: NDArray[np.str_],
    right_a: NDArray[np.bool_],
    right_b: NDArray[np.bool_],
) -> tuple[ClassChange, ...]:
    """Compare the recall of each class with shared images."""
    masses = [
        {entry["class"]: entry["border_mass"] for entry in audit.facts["per_class"]}
        for audit in (first, second)
    ]
    order = np.argsort(names, kind="stable")
    found, starts = np.unique(names[order], return_index=True)
    rows = np.split(order, starts[1:]) if len(found) else []
    changes = [
        (name, paired_difference(right_a[own], right_b[own], _generator(f"class {name}")))
        for name, own in zip(found.tolist(), rows, strict=True)
    ]
    known = [(name, change) for name, change in changes if change is not None]
    q = q_values(np.asarray([change.p for _, change in known], np.float64)).tolist()
    return tuple(
        sorted(
            (
                ClassChange(name, change, value, (masses[0].get(name), masses[1].get(name)))
                for (name, change), value in zip(known, q, strict=True)
            ),
            key=lambda change: (-abs(change.recall.value), change.name),
        )
    )


def match_findings(
    first: Sequence[Finding], second: Sequence[Finding]
) -> tuple[tuple[Stayed, ...], tuple[Finding, ...], tuple[Finding, ...]]:
    """Match findings by id, the rest by kind, class, group and region; return those that stayed, appeared and went."""
    by_id = {finding.id: finding for finding in second}
    pairs = {finding.id: by_id[finding.id] for finding in first if finding.id in by_id}
    left = [finding for finding in second if finding.id not in pairs]
    for finding in first:
        if finding.id in pairs:
            continue
        near = [(overlap(finding, other), -place) for place, other in enumerate(left)]
        best, place = max(near, default=(0.0, 0))
        if best >= SAME_REGION:
            pairs[finding.id] = left.pop(-place)
    stayed = tuple(Stayed(finding, pairs[finding.id]) for finding in first if finding.id in pairs)
    return stayed, _by_severity(left), _by_severity(each for each in first if each.id not in pairs)


def overlap(first: Finding, second: Finding) -> float:
    """Return the intersection over union of the regions of two findings of the same subject; 0 if they differ otherwise."""
    if (first.kind, first.class_name, first.group) != (second.kind, second.class_name, second.group):
        return 0.0
    if first.region is None or second.region is None:
        return 0.0
    if (first.region.height, first.region.width) != (second.region.height, second.region.width):
        return 0.0
    inside, others = first.region.weights, second.region.weights
    union = float(np.maximum(inside, others).sum())
    return float(np.minimum(inside, others).sum()) / union if union else 0.0


def _by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))
