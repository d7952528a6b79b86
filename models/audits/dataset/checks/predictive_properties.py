"""Properties of files and images that predict the class, so that a network can learn them instead of the objects.

Each property is tested alone: of a class the values that it has more often than the other classes have are found on four
fifths of the images, and the class of the remaining fifth is predicted from its value. Classes weigh alike, so a property that
says nothing scores 0 however unequal the classes are. Among many classes a property of one of them changes this score little,
so each class is also compared with all others together: cleanlab's check compares with the largest class, and by an index in
place of a count (cleanlab 2.7, ``spurious_correlation.py``), so that it reports such properties.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...findings.fdr import q_values
from ...findings.finding import MAX_KEYS, Advice, Effect, Finding, Null, finding_id
from ...findings.intervals import Z_95
from ...findings.out_of_fold import NUM_FOLDS, assign_folds
from ..severity import severity_of
from .table_columns import category_columns, number_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ..dataset_table import DatasetTable

MAX_Q = 0.01
MIN_IMAGES = 20
"""Smallest class that is compared."""
MIN_EXPECTED = 5.0
"""A number is divided into at most so many groups that each holds so many images of the average class (Cochran 1954)."""
MAX_GROUPS = 16
MIN_SCORE = 0.1
"""Scores: 0 for a property that says nothing, 1 for one that tells all classes apart."""
MIN_CONTENT_SCORE = 0.5
"""Score of one class against the others, for properties that come from what images show."""
MIN_COMMON = 0.5
"""Properties stand out in the same images if they have at least this share in common."""
MIN_LIFT = 2.0
"""Values of a class are those that it has at least so many times as often as the other images."""
TRACES = frozenset(
    {
        "format", "bytes", "bytes_per_pixel", "width", "height", "channels", "jpeg_quality", "chroma_subsampling", "progressive",
        "exif_camera", "exif_software", "exif_orientation", "orientation", "mode", "icc_profile", "blockiness", "noise",
        "least_noise", "has_several_frames",
    }
)  # fmt: skip
"""Properties that come from how images were made and stored, not from what they show."""
STATED = TRACES - {"bytes", "bytes_per_pixel", "blockiness", "noise"}
"""Those that files state. Others that follow from them are named in their findings, not the other way round."""


@dataclass(frozen=True)
class Prediction:
    """Prediction of the class from one property."""

    of_one_class: bool
    """Whether the score is that of one class against all others; otherwise it is that of all classes."""
    score: float
    """Cross-validated; of all classes (balanced accuracy - 1 / C) / (1 - 1 / C), of one class the share of it with its values
    minus that of the other images (Youden 1950)."""
    low: float
    high: float
    p: float
    """Of the chi-squared test of values and classes; of one class, of a score of 0, for all classes together (Bonferroni)."""
    number: int
    """Position of the class that stands out most."""
    group: int
    """Group of values that it has much more often than the others."""
    own: float
    others: float
    """Shares of the class's and of the other images in this group."""


def find_predictive_properties(table: DatasetTable) -> list[Finding]:
    """Return a finding for each property that predicts the class; empty with fewer than two classes of enough images."""
    numbers, sizes = np.unique(table.labels[(table.labels >= 0) & table.is_readable], return_counts=True)
    numbers = numbers[sizes >= MIN_IMAGES]
    if len(numbers) < 2:
        return []
    rows = np.flatnonzero(np.isin(table.labels, numbers) & table.is_readable)
    labels = np.searchsorted(numbers, table.labels[rows])
    folds = assign_folds(labels, table.generator("predictive properties"))
    groups: dict[str, tuple[NDArray[np.int64], tuple[str, ...]]] = {}
    most = int(np.clip(len(rows) / (len(numbers) * MIN_EXPECTED), 2, MAX_GROUPS))
    for name, values in number_columns(table).items():
        groups[name] = group_numbers(values[rows], most)
    for name, (values_of, names) in category_columns(table).items():
        groups[name] = values_of[rows], names
    groups = {name: found for name, found in groups.items() if len(np.unique(found[0])) > 1}
    predictions = {
        name: predict_class(values, labels, folds, len(numbers), len(names))
        for name, (values, names) in groups.items()
    }
    adjusted = q_values(np.array([each.p for each in predictions.values()]))
    q_of = dict(zip(predictions, adjusted.tolist(), strict=True))
    telling = [name for name, each in predictions.items() if q_of[name] <= MAX_Q and _tells(name, each)]
    telling.sort(key=lambda name: (name not in STATED, name not in TRACES, -predictions[name].score, name))
    same: dict[str, list[str]] = {}
    for name in telling:
        causes = (one for one in same if _is_explained(name, one, groups, predictions, labels, folds))
        cause = next(causes, None)
        if cause is None:
            same[name] = []
        else:
            same[cause].append(name)
    found = [
        _finding(table, name, predictions[name], q_of[name], groups[name], numbers, rows, also)
        for name, also in same.items()
    ]
    return sorted(found, key=lambda each: (-each.effect.value, each.id))


def _is_explained(
    name: str,
    cause: str,
    groups: Mapping[str, tuple[NDArray[np.int64], tuple[str, ...]]],
    predictions: Mapping[str, Prediction],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
) -> bool:
    """Return whether another property stands out in the same images, and this one says nothing about the class without them."""
    rest = groups[cause][0] != predictions[cause].group
    own = (groups[name][0] == predictions[name].group) & (labels == predictions[name].number)
    if rest[own].mean() > 1 - MIN_COMMON:
        return False
    _, rest_labels = np.unique(labels[rest], return_inverse=True)
    sizes = np.bincount(rest_labels)
    if (sizes >= MIN_IMAGES).sum() < 2:
        return predictions[cause].number == predictions[name].number
    usable = sizes[rest_labels] >= MIN_IMAGES
    _, rest_labels = np.unique(rest_labels[usable], return_inverse=True)
    values, names = groups[name]
    left = predict_class(
        values[rest][usable], rest_labels, folds[rest][usable], int(rest_labels.max()) + 1, len(names)
    )
    return not (left.p <= MAX_Q and _tells(name, left))


def group_numbers(values: NDArray[np.float64], most: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Divide numbers into groups of about equal size, with a group of its own for missing ones; returns groups and names."""
    known = values[~np.isnan(values)]
    if not len(known):
        return np.zeros(len(values), np.int64), ("missing",)
    distinct = np.unique(known)
    if len(distinct) <= most:
        edges = distinct[1:]
    else:
        edges = np.unique(np.quantile(known, np.arange(1, most) / most, method="inverted_cdf"))
        edges = edges[edges > distinct[0]]
    numbers = np.searchsorted(edges, values, side="right")
    bounds = [float(distinct[0]), *edges.tolist()]
    names = []
    for position, low in enumerate(bounds):
        inside = known[
            (known >= low) & (known < bounds[position + 1] if position + 1 < len(bounds) else True)
        ]
        high = float(inside.max()) if len(inside) else low
        names.append(f"{low:.4g}" if high == low else f"{low:.4g} to {high:.4g}")
    numbers[np.isnan(values)] = len(names)
    return numbers.astype(np.int64), (*names, "missing")


def predict_class(
    values: NDArray[np.int64],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    num_classes: int,
    num_groups: int,
) -> Prediction:
    """Predict the class of each image from its group of values, by counts of the other folds with one added to each.

    Args:
        values: groups 0 to ``num_groups - 1``.
        labels: classes 0 to ``num_classes - 1``.
        folds: fold of each image.
        num_classes: number of classes.
        num_groups: number of groups.
    """
    from scipy.stats import chi2

    tables = np.stack(
        [
            _counts(values[folds == fold], labels[folds == fold], num_classes, num_groups)
            for fold in range(NUM_FOLDS)
        ]
    )
    counts = tables.sum(axis=0)
    sizes = counts.sum(axis=1)
    right = np.zeros(num_classes)
    for fold in range(NUM_FOLDS):
        fitted = counts - tables[fold] + 1
        shares = fitted / fitted.sum(axis=1, keepdims=True)
        best = shares == shares.max(axis=0)  # of equal classes each is right with equal probability
        right += (tables[fold] * best / best.sum(axis=0)).sum(axis=1)
    recalls = right / sizes
    variance = float((recalls * (1 - recalls) / sizes).sum()) / num_classes**2
    scale = 1 / (1 - 1 / num_classes)
    score = (float(recalls.mean()) - 1 / num_classes) * scale
    half = Z_95 * math.sqrt(variance) * scale
    used = counts[:, counts.sum(axis=0) > 0].astype(np.float64)
    expected = used.sum(axis=1, keepdims=True) * used.sum(axis=0) / used.sum()
    usable = expected.mean(axis=0) >= 1
    statistic = float(((used - expected) ** 2 / expected)[:, usable].sum())
    freedom = (num_classes - 1) * max(1, int(usable.sum()) - 1)
    own = counts / sizes[:, None]
    others = (counts.sum(axis=0) - counts) / (sizes.sum() - sizes)[:, None]
    p = float(chi2.sf(statistic, freedom))
    of_one_class = score < MIN_SCORE
    if of_one_class:
        number, score, half, p = _one_class(tables)
        group = int(np.argmax(own[number] - others[number]))
    else:
        number, group = (int(each) for each in np.unravel_index(int(np.argmax(own - others)), counts.shape))
    return Prediction(
        of_one_class,
        score,
        score - half,
        min(1.0, score + half),
        p,
        number,
        group,
        float(own[number, group]),
        float(others[number, group]),
    )


def _one_class(tables: NDArray[np.int64]) -> tuple[int, float, float, float]:
    """Return the class that differs most surely from all others, its score, half the width of its interval, and p.

    Interval and p hold for all classes together (Bonferroni).

    Args:
        tables: counts by fold, class and group.
    """
    from scipy.stats import norm

    counts = tables.sum(axis=0)
    hits = np.zeros((2, len(counts)))
    for fold in tables:
        fitted = counts - fold + 1
        own, rest = fitted, fitted.sum(axis=0) - fitted
        shares = own / own.sum(axis=1, keepdims=True), rest / rest.sum(axis=1, keepdims=True)
        is_typical = shares[0] >= MIN_LIFT * shares[1]
        hits += [(side * is_typical).sum(axis=1) for side in (fold, fold.sum(axis=0) - fold)]
    sizes = np.stack([counts.sum(axis=1), counts.sum() - counts.sum(axis=1)])
    scores = np.subtract(*(hits / sizes))
    smoothed = (hits + 1) / (sizes + 2)
    deviations = np.sqrt((smoothed * (1 - smoothed) / sizes).sum(axis=0))
    half = float(norm.isf(0.025 / len(counts)))
    number = int(np.argmax(scores - half * deviations))
    p = min(1.0, 2 * len(counts) * float(norm.sf(scores[number] / deviations[number])))
    return number, float(scores[number]), half * float(deviations[number]), p


def _counts(
    values: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int, num_groups: int
) -> NDArray[np.int64]:
    flat = np.bincount(labels * num_groups + values, minlength=num_classes * num_groups)
    return np.asarray(flat.reshape(num_classes, num_groups), np.int64)


def _tells(name: str, each: Prediction) -> bool:
    least = MIN_CONTENT_SCORE if each.of_one_class and name not in TRACES else MIN_SCORE
    return each.score >= least and each.low > 0


def _finding(
    table: DatasetTable,
    name: str,
    each: Prediction,
    q: float,
    groups: tuple[NDArray[np.int64], tuple[str, ...]],
    numbers: NDArray[np.int64],
    rows: NDArray[np.intp],
    also: Sequence[str],
) -> Finding:
    values, names = groups
    label, value = int(numbers[each.number]), names[each.group]
    class_name = table.class_names[label] if label < len(table.class_names) else f"class {label}"
    concerned = rows[(table.labels[rows] == label) & (values == each.group)]
    others = rows[(table.labels[rows] != label) & (values != each.group)]
    subject = f"class {class_name} from the others" if each.of_one_class else "the classes apart"
    is_trace = name in TRACES
    reason = (
        "It comes from how the images were made and stored, so a network that uses it fails on images from elsewhere: store all "
        "classes alike, or train with augmentations that vary it."
        if is_trace
        else "It may belong to the class; where it does not, train with augmentations that vary it."
    )
    return Finding(
        id=finding_id("predictive_property", name),
        kind="predictive_property",
        severity=severity_of("predictive_property", "trace" if is_trace else "content", each.score),
        class_name=class_name,
        class_number=label,
        group=f"{name} = {value}",
        sentence=f"{name} alone tells {subject} with a score of {each.score:.2f} (0: not at all, 1: always): "
        f"{100 * each.own:.0f} % of class {class_name} have {value}, {100 * each.others:.0f} % of the others."
        + _also(also),
        effect=Effect(each.score, "chance-corrected score", each.low, each.high),
        null=Null(0.0, each.p, q),
        num_images=len(rows),
        num_concerned=len(concerned),
        keys=table.keys_of(concerned[:MAX_KEYS]),
        other_keys=table.keys_of(table.generator(f"others {name}").permutation(others)[:MAX_KEYS]),
        advice=Advice(reason, AUGMENTATIONS.get(name, "")),
    )


def _also(names: Sequence[str]) -> str:
    if not names:
        return ""
    listed = " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
    return f" {'So does' if len(names) == 1 else 'So do'} {listed}, through the same images."


AUGMENTATIONS = {
    "jpeg_quality": "augment:\n  - ImageCompression: {quality_range: [40, 95], p: 0.5}\n",
    "blockiness": "augment:\n  - ImageCompression: {quality_range: [40, 95], p: 0.5}\n",
    "bytes_per_pixel": "augment:\n  - ImageCompression: {quality_range: [40, 95], p: 0.5}\n",
    "brightness": "augment:\n  - RandomBrightnessContrast: {p: 0.5}\n",
    "contrast": "augment:\n  - RandomBrightnessContrast: {p: 0.5}\n",
    "saturation": "augment:\n  - HueSaturationValue: {p: 0.5}\n",
    "colorfulness": "augment:\n  - HueSaturationValue: {p: 0.5}\n",
    "is_gray": "augment:\n  - ToGray: {p: 0.3}\n",
    "sharpness": "augment:\n  - GaussianBlur: {p: 0.3}\n",
    "noise": "augment:\n  - GaussNoise: {p: 0.3}\n",
}
"""Transforms of a plan that vary a property."""
