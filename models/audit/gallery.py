"""The gallery: which images people are shown, and their pixels as the model saw them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ...pipeline.compiler.program import Program
from ...pipeline.view import View
from .pictures import overlay, seen_pixels, thumbnail
from .records import Answers, answers, maps_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ...pipeline.jobs import Engine
    from ...pipeline.plan import Plan


@dataclass(frozen=True)
class Card:
    """One image of the gallery with its overlays, as data URIs."""

    key: str
    label: str
    prediction: str
    confidence: float
    """Softmax of the predicted class, 0..1."""
    border_mass: float | None
    """None for a blank map."""
    right: bool | None
    """None without a label."""
    image: str
    evidence: str
    """Overlay for the predicted class; empty where its map is blank."""
    evidence_true: str
    """Overlay for the labelled class of a wrong image; empty where there is none."""


@dataclass(frozen=True)
class Section:
    """A titled row of cards."""

    title: str
    text: str
    cards: tuple[Card, ...]


TITLES = {
    "sure": ("Wrong and most sure of it", "The model's worst mistakes: highest confidence, wrong class."),
    "wrong": ("Wrong", "A spread over the other mistakes, by confidence."),
    "right": ("Right", "A spread over the classes. Right for the right reason?"),
    "unlabelled": ("Without a label", "The index holds no label for these."),
}


def choose_rows(records: Answers, num: int) -> dict[str, list[int]]:
    """Choose about ``num`` rows: a third sure mistakes, a third other mistakes, the rest right.

    The choice draws nothing, so the same records give the same gallery.
    """
    third = num // 3
    wrong = np.flatnonzero(records.wrong)
    wrong = wrong[np.argsort(-records.confidences[wrong], kind="stable")]
    sure, others = wrong[:third], wrong[third:]
    others = evenly(others, third)
    num_right = num - len(sure) - len(others)
    right = over_classes(np.flatnonzero(records.right), records.labels, num_right)
    chosen = {"sure": sure.tolist(), "wrong": others.tolist(), "right": right}
    rest = num - sum(len(rows) for rows in chosen.values())
    chosen["unlabelled"] = evenly(np.flatnonzero(~records.labelled), rest).tolist()
    return chosen


def evenly(rows: NDArray[np.intp], num: int) -> NDArray[np.intp]:
    """Take at most ``num`` of some rows, evenly spaced, in order."""
    if len(rows) <= num:
        return rows
    return rows[np.linspace(0, len(rows) - 1, num).round().astype(np.intp)] if num else rows[:0]


def over_classes(rows: NDArray[np.intp], labels: NDArray[np.int64], num: int) -> list[int]:
    """Take at most ``num`` rows, one class after another in turn."""
    turns: dict[int, int] = {}
    order = []
    for row in rows.tolist():
        turn = turns.get(int(labels[row]), 0)
        turns[int(labels[row])] = turn + 1
        order.append((turn, int(labels[row]), row))
    return sorted(row for _, _, row in sorted(order)[: max(num, 0)])


def read_pixels(
    engine: Engine, plan: Plan, split: str | None, keys: Sequence[str]
) -> dict[str, NDArray[np.uint8]]:
    """Read some images again, as the model saw them: key -> uint8 (H, W, 3)."""
    if not keys:
        return {}
    constants = Program.compile(plan).normalization
    mean, std = (constants.mean, constants.std) if constants else ((0.0,) * 3, (1.0,) * 3)
    pixels: dict[str, NDArray[np.uint8]] = {}
    with engine.feed(plan, View(split=split, keys=tuple(keys))) as feed:
        for batch in feed:
            images = seen_pixels(batch.images.numpy(), mean, std)
            kept = zip(batch.keys, images, batch.own, strict=True)
            pixels |= {key: image.copy() for key, image, own in kept if own}
    return pixels


def build_gallery(
    records: pa.Table,
    pixels: Mapping[str, NDArray[np.uint8]],
    chosen: Mapping[str, Sequence[int]],
    classes: Sequence[str],
) -> tuple[Section, ...]:
    """Draw the sections of the gallery; an image that could not be read again is left out."""
    taken = answers(records)
    sections = []
    for kind, rows in chosen.items():
        picked = records.take(pa.array(rows, pa.int64()))
        maps, maps_true = maps_of(picked), maps_of(picked, "map_true")
        blank_true = picked["blank_true"].to_pylist()
        cards = [
            draw_card(taken, row, pixels[taken.keys[row]], small, None if blank else small_true, classes)
            for row, small, small_true, blank in zip(rows, maps, maps_true, blank_true, strict=True)
            if taken.keys[row] in pixels
        ]
        if cards:
            sections.append(Section(*TITLES[kind], tuple(cards)))
    return tuple(sections)


def draw_card(
    taken: Answers,
    row: int,
    image: NDArray[np.uint8],
    small: NDArray[np.float32] | None,
    small_true: NDArray[np.float32] | None,
    classes: Sequence[str],
) -> Card:
    """Draw one card; the labelled class's overlay only where the model was wrong."""
    label, border = int(taken.labels[row]), float(taken.border_mass[row])
    blank = np.isnan(border)
    wrong = bool(taken.wrong[row])
    return Card(
        key=str(taken.keys[row]),
        label=class_name(label, classes),
        prediction=class_name(int(taken.predictions[row]), classes),
        confidence=float(taken.confidences[row]),
        border_mass=None if blank else border,
        right=bool(taken.right[row]) if label >= 0 else None,
        image=thumbnail(image),
        evidence="" if blank or small is None else thumbnail(overlay(image, small)),
        evidence_true=thumbnail(overlay(image, small_true)) if wrong and small_true is not None else "",
    )


def class_name(number: int, classes: Sequence[str]) -> str:
    """Name a class; its number where the index has no name for it."""
    if number < 0:
        return "no label"
    return classes[number] if number < len(classes) else f"class {number}"
