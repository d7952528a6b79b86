"""Findings as the report shows them: numbers as text, images, and the region drawn in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ....report.finding_text import KIND_NAMES, chance_text, effect_text, number_text
from ..gallery import MAX_FINDINGS, MAX_OTHER, MAX_OWN
from ..verdicts import sentence_of_test
from .shots import outline

if TYPE_CHECKING:
    from ...findings.finding import Confirmation, Finding
    from .cards import Card

STATUS_TEXTS = {
    "confirmed": "Confirmed by changing the pixels",
    "refuted": "Refuted by changing the pixels",
    "not testable": "Not testable by changing pixels",
    "not tested": "Not tested by changing pixels",
}


@dataclass(frozen=True, slots=True)
class ShownImage:
    """An image of a finding."""

    card: Card
    outline: str
    """Of the region, as an SVG path; empty without one."""
    suggested: str
    """Class that the finding suggests instead of the label; empty if it suggests none."""


@dataclass(frozen=True, slots=True)
class FindingCard:
    """One finding."""

    finding: Finding
    sentence: str
    """Without what the interventions showed, which the card lists."""
    kind: str
    effect: str
    by_chance: str
    """The same number if chance alone decided, with the p-value and the q-value; empty if unknown."""
    status: str
    interventions: tuple[tuple[str, str], ...]
    """What was done to images, and the change that it made."""
    images: tuple[ShownImage, ...]
    """Images that show it."""
    others: tuple[ShownImage, ...]
    """Images to compare with."""


def finding_cards(
    findings: Sequence[Finding],
    cards: Mapping[str, Card],
    suggested: Mapping[tuple[str, str], str],
) -> list[FindingCard]:
    """Describe the findings that are shown with images."""
    return [
        FindingCard(
            finding=finding,
            sentence=finding.sentence.removesuffix(sentence_of_test(finding)).strip(),
            kind=KIND_NAMES.get(finding.kind, finding.kind),
            effect=effect_text(finding.effect),
            by_chance=chance_text(finding),
            status=STATUS_TEXTS.get(finding.confirmation.status, finding.confirmation.status),
            interventions=intervention_texts(finding.confirmation, finding.class_name),
            images=_images(finding, finding.keys[:MAX_OWN], cards, suggested),
            others=_images(finding, finding.other_keys[:MAX_OTHER], cards, {}),
        )
        for finding in findings[:MAX_FINDINGS]
    ]


def _images(
    finding: Finding,
    keys: Sequence[str],
    cards: Mapping[str, Card],
    suggested: Mapping[tuple[str, str], str],
) -> tuple[ShownImage, ...]:
    shown = [cards[key] for key in keys if key in cards]
    region = finding.region
    return tuple(
        ShownImage(
            card,
            "" if region is None else outline(region, card.photo.width, card.photo.height),
            suggested.get((finding.id, card.key), ""),
        )
        for card in shown
    )


def intervention_texts(confirmation: Confirmation, class_name: str | None) -> tuple[tuple[str, str], ...]:
    """Describe what changing pixels did to the probability of the class."""
    rows = []
    if confirmation.drop is not None:
        rows.append(
            (
                "Region removed from images that show it: decrease of the probability",
                effect_text(confirmation.drop),
            )
        )
    if confirmation.control_drop is not None:
        rows.append(
            (
                "Baseline: another region of equal area removed",
                number_text(confirmation.control_drop, "probability"),
            )
        )
    if confirmation.paste is not None:
        rows.append(
            ("Region pasted into other images: increase of the probability", effect_text(confirmation.paste))
        )
    if confirmation.paste_control is not None:
        rows.append(
            (
                "Baseline: that other region pasted into them",
                number_text(confirmation.paste_control, "probability"),
            )
        )
    if confirmation.flip_rate is not None:
        rows.append(
            (
                f"Images with the region pasted that are then predicted as {class_name or 'the class'}",
                effect_text(confirmation.flip_rate),
            )
        )
    return tuple(rows)
