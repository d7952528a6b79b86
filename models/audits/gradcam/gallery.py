"""Image gallery of the report: selection of images, and their pixels as input to the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from .pictures import overlay, thumbnail
from .records import Predictions, maps_of, read_predictions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Card:
    """An image of the gallery with its overlays, as data URIs."""

    key: str
    label: str
    prediction: str
    confidence: float
    """Softmax probability of the predicted class, 0..1."""
    border_mass: float | None
    """None for an empty map."""
    right: bool | None
    """None without a label."""
    image: str
    evidence: str
    """Overlay for the explained class; an empty string if its map is empty."""
    evidence_true: str
    """Overlay for the labelled class of a wrong prediction; an empty string if there is none."""
    explained: str
    """Class explained by ``evidence``."""
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    """Left, top, width and height of the annotated boxes, in percent of the image."""
    hit: bool | None = None
    """Whether the peak of the labelled class's map is in a box; None without boxes."""


@dataclass(frozen=True)
class Section:
    """A titled row of cards."""

    title: str
    text: str
    cards: tuple[Card, ...]


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
}


def choose_rows(records: Predictions, num: int) -> dict[str, list[int]]:
    """Select about ``num`` rows: a third most confident errors, a third other errors, the rest correct.

    The selection is deterministic.
    """
    third = -(-num // 3)  # rounded up, so that a gallery of one or two images shows errors
    wrong = np.flatnonzero(records.wrong)
    wrong = wrong[np.argsort(-records.confidences[wrong], kind="stable")]
    sure, others = wrong[:third], wrong[third:]
    others = evenly_spaced(others, min(third, num - len(sure)))
    num_right = num - len(sure) - len(others)
    right = sample_balanced(np.flatnonzero(records.right), records.labels, num_right)
    chosen = {"sure": sure.tolist(), "wrong": others.tolist(), "right": right}
    rest = num - sum(len(rows) for rows in chosen.values())
    chosen["unlabelled"] = evenly_spaced(np.flatnonzero(~records.labelled), rest).tolist()
    return chosen


def evenly_spaced(rows: NDArray[np.intp], num: int) -> NDArray[np.intp]:
    """Select at most ``num`` rows, evenly spaced, in order."""
    if len(rows) <= num:
        return rows
    return rows[np.linspace(0, len(rows) - 1, num).round().astype(np.intp)] if num else rows[:0]


def sample_balanced(rows: NDArray[np.intp], labels: NDArray[np.int64], num: int) -> list[int]:
    """Select at most ``num`` rows, balanced over classes, or over evenly spaced classes if there are more."""
    classes, sizes = np.unique(labels[rows], return_counts=True)
    counts = np.zeros(len(classes), np.int64)
    while (left := min(num, len(rows)) - int(counts.sum())) > 0:
        counts[evenly_spaced(np.flatnonzero(counts < sizes), left)] += 1
    chosen = [evenly_spaced(rows[labels[rows] == c], int(n)) for c, n in zip(classes, counts, strict=True)]
    return sorted(int(row) for some in chosen for row in some)


@dataclass(frozen=True)
class Picture:
    """An image as the model saw it."""

    pixels: NDArray[np.uint8]
    """(H, W, 3)."""
    boxes: NDArray[np.float32] | None = None
    """(n, 4): x0, y0, x1, y1 in pixels."""


def build_gallery(
    records: pa.Table,
    pictures: Mapping[str, Picture],
    chosen: Mapping[str, Sequence[int]],
    classes: Sequence[str],
) -> tuple[Section, ...]:
    """Build the sections of the gallery, without images that could not be read again."""
    preds = read_predictions(records)
    sections = []
    for kind, rows in chosen.items():
        picked = records.take(pa.array(rows, pa.int64()))
        maps, maps_true = maps_of(picked), maps_of(picked, "map_true")
        blank_true, hits = picked["blank_true"].to_pylist(), picked["hit"].to_pylist()
        explained = picked["explained"].to_pylist()
        cards = [
            draw_card(
                preds,
                row,
                pictures[preds.keys[row]],
                small,
                None if blank else small_true,
                classes,
                hit,
                number,
            )
            for row, small, small_true, blank, hit, number in zip(
                rows, maps, maps_true, blank_true, hits, explained, strict=True
            )
            if preds.keys[row] in pictures
        ]
        if cards:
            sections.append(Section(*TITLES[kind], tuple(cards)))
    return tuple(sections)


def draw_card(
    preds: Predictions,
    row: int,
    picture: Picture,
    small: NDArray[np.float32] | None,
    small_true: NDArray[np.float32] | None,
    classes: Sequence[str],
    hit: bool | None,
    explained: int,
) -> Card:
    """Build a card; with an overlay for the labelled class if the prediction is wrong."""
    label, border = int(preds.labels[row]), float(preds.border_mass[row])
    blank = np.isnan(border)
    wrong, image = bool(preds.wrong[row]), picture.pixels
    return Card(
        key=str(preds.keys[row]),
        label=class_name(label, classes),
        prediction=class_name(int(preds.predictions[row]), classes),
        confidence=float(preds.confidences[row]),
        border_mass=None if blank else border,
        right=bool(preds.right[row]) if preds.labelled[row] else None,
        image=thumbnail(image),
        evidence="" if blank or small is None else thumbnail(overlay(image, small)),
        evidence_true=thumbnail(overlay(image, small_true)) if wrong and small_true is not None else "",
        explained=class_name(explained, classes),
        boxes=percent_boxes(picture),
        hit=hit,
    )


def percent_boxes(picture: Picture) -> tuple[tuple[float, float, float, float], ...]:
    """Return the boxes of a picture as left, top, width and height in percent."""
    if picture.boxes is None:
        return ()
    height, width = picture.pixels.shape[:2]
    scale = np.array([100 / width, 100 / height] * 2)
    corners = np.clip(picture.boxes[:, :4] * scale, 0, 100)
    return tuple((float(x0), float(y0), float(x1 - x0), float(y1 - y0)) for x0, y0, x1, y1 in corners)


def class_name(number: int, classes: Sequence[str]) -> str:
    """Return the name of a class, or ``class N`` if it has none."""
    if number < 0:
        return "no label"
    return classes[number] if number < len(classes) else f"class {number}"
