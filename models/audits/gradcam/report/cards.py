"""Cards of the report's images: prediction, label and maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..gallery import choose_rows, class_name, finding_keys
from ..pictures import heat_layer
from ..records import Predictions, maps_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...findings.finding import Finding
    from .opinions import OpinionPanel
    from .shots import Photo

TITLES = {
    "sure": ("Most confident errors", "Wrong predictions with the highest confidence."),
    "wrong": ("Other errors", "Sampled evenly over confidence."),
    "right": (
        "Correct predictions",
        "Sampled evenly over classes. Check whether the evidence is on the object.",
    ),
    "unlabelled": (
        "Unlabelled images",
        "Images without a label, or with a label that is not a class of the model.",
    ),
    "findings": ("Images of the findings", "Images shown with the findings above that are not listed yet."),
}


@dataclass(frozen=True, slots=True)
class Card:
    """An image with its prediction and maps."""

    key: str
    photo: Photo
    label: str
    prediction: str
    confidence: float
    """Softmax probability of the predicted class, 0..1."""
    right: bool | None
    """None without a label."""
    border_mass: float | None
    """None for an empty map."""
    explained: str
    """Class explained by ``heat``."""
    heat: str
    """Map as a data URI; an empty string if it is empty."""
    heat_true: str
    """Map for the labelled class of a wrong prediction; an empty string if there is none."""
    hit: bool | None
    """Whether the peak of the labelled class's map is in a box; None without boxes."""
    findings: tuple[str, ...] = ()
    """Ids of the findings with which it is shown."""
    opinions: tuple[OpinionPanel, ...] = ()
    """Attributions by other methods."""

    @property
    def outcome(self) -> str:
        """The filter of the gallery that it passes."""
        return "unlabelled" if self.right is None else "correct" if self.right else "wrong"


@dataclass(frozen=True, slots=True)
class Section:
    """A titled row of cards."""

    title: str
    text: str
    cards: tuple[Card, ...]


def draw_cards(
    records: pa.Table,
    preds: Predictions,
    photos: Mapping[str, Photo],
    classes: Sequence[str],
    findings: Sequence[Finding],
    opinions: Mapping[str, tuple[OpinionPanel, ...]],
) -> dict[str, Card]:
    """Draw the cards of all images with a photo, by key."""
    rows = np.flatnonzero(np.isin(preds.keys.astype(str), list(photos))) if photos else np.zeros(0, np.int64)
    picked = records.take(pa.array(rows, pa.int64()))
    concerned: dict[str, list[str]] = {}
    for finding in findings:
        for key in finding.keys:
            concerned.setdefault(key, []).append(finding.id)
    columns = zip(
        rows.tolist(),
        maps_of(picked),
        maps_of(picked, "map_true"),
        picked.select(["blank", "blank_true", "hit", "explained"]).to_pylist(),
        strict=True,
    )
    cards = {}
    for row, small, small_true, facts in columns:
        key = str(preds.keys[row])
        wrong, border = bool(preds.wrong[row]), float(preds.border_mass[row])
        cards[key] = Card(
            key=key,
            photo=photos[key],
            label=class_name(int(preds.labels[row]), classes),
            prediction=class_name(int(preds.predictions[row]), classes),
            confidence=float(preds.confidences[row]),
            right=bool(preds.right[row]) if preds.labelled[row] else None,
            border_mass=None if np.isnan(border) else border,
            explained=class_name(facts["explained"], classes),
            heat=_heat(small, facts["blank"]),
            heat_true=_heat(small_true, facts["blank_true"]) if wrong else "",
            hit=facts["hit"],
            findings=tuple(concerned.get(key, ())),
            opinions=opinions.get(key, ()),
        )
    return cards


def _heat(small: NDArray[np.float32] | None, blank: bool | None) -> str:
    return "" if small is None or blank or not small.any() else heat_layer(small)


def gallery_sections(
    preds: Predictions, cards: Mapping[str, Card], findings: Sequence[Finding], num: int
) -> tuple[Section, ...]:
    """Sort the cards into the sections of the gallery."""
    chosen = {kind: [str(preds.keys[row]) for row in rows] for kind, rows in choose_rows(preds, num).items()}
    listed = {key for keys in chosen.values() for key in keys}
    shown = dict.fromkeys(key for finding in findings for key in finding_keys(finding))
    chosen["findings"] = [key for key in shown if key not in listed]
    sections = [
        Section(*TITLES[kind], tuple(cards[key] for key in keys if key in cards))
        for kind, keys in chosen.items()
    ]
    return tuple(section for section in sections if section.cards)
