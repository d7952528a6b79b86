"""HTML page of an audit: a single file without external resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .....pipeline.atomic_io import write_text
from ....report.curves import Curves
from ....report.finding_text import KIND_NAMES, effect_text
from ....report.html import render_page
from ...findings.finding import SEVERITIES, Finding
from ..gallery import MAX_FINDINGS, Picture
from ..records import read_predictions
from ..verdicts import LARGE_DROP, LARGE_EFFECT
from .cards import draw_cards, gallery_sections
from .charts import line_chart, reliability_chart
from .class_sections import MAX_ROWS, class_entries, overall_means
from .finding_cards import finding_cards
from .opinions import draw_opinions
from .shots import number_photos
from .summary import (
    column_names,
    confusion_rows,
    lowest_recall,
    place_rows,
    provenance,
    quarantine_note,
    subtitle,
    summary_cards,
)

if TYPE_CHECKING:
    import pyarrow as pa

MAX_QUARANTINE = 50
MAX_LISTED_FINDINGS = 500
"""Findings without images that are listed; all are in findings.json."""


@dataclass(frozen=True)
class Report:
    """Content of the report."""

    title: str
    findings: Mapping[str, Any]
    """The content of findings.json."""
    records: pa.Table
    found: Sequence[Finding]
    """The most severe first."""
    pictures: Mapping[str, Picture]
    """Images to show, by key."""
    num_gallery: int
    """Images in the gallery, besides those of the findings."""
    quarantine: Sequence[Mapping[str, Any]]
    names: Sequence[str] = ()
    """Names of all classes by number."""
    curves: Mapping[str, Curves] = field(default_factory=dict)
    """Training curves: chart name -> curve name -> (epoch, value)."""
    credit: str = ""
    suggested: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Suggested class by finding and key."""
    opinions: pa.Table | None = None
    """Records of the stage ``opinions``."""

    def write(self, path: Path) -> None:
        """Write the page atomically.

        Raises:
            OutputError: the file cannot be written.
        """
        write_text(path, self.render())

    def render(self) -> str:
        """Return the page as HTML, with all names escaped."""
        facts, preds = self.findings, read_predictions(self.records)
        photos = number_photos(self.pictures)
        cards = draw_cards(self.records, preds, photos, self.names, self.found, draw_opinions(self.opinions))
        shown = self.found[:MAX_FINDINGS]
        reasons = tuple((facts.get("trust") or {}).get("reasons", ()))  # shown with the verdict
        return render_page(
            __package__,
            "page.html",
            "page.js",
            title=self.title,
            subtitle=subtitle(facts),
            credit=self.credit,
            facts=facts,
            notes=[note for note in facts["notes"] if not note.endswith(reasons)],
            trust=facts.get("trust"),
            searched=facts.get("searched"),
            limit=facts.get("detection_limit"),
            opinions=facts.get("second_opinions", ()),
            found=finding_cards(self.found, cards, self.suggested),
            listed=[
                (each, effect_text(each.effect))
                for each in self.found[MAX_FINDINGS : MAX_FINDINGS + MAX_LISTED_FINDINGS]
            ],
            num_unlisted=max(0, len(self.found) - MAX_FINDINGS - MAX_LISTED_FINDINGS),
            kind_names=KIND_NAMES,
            severities=[
                (severity, sum(each.severity == severity for each in self.found)) for severity in SEVERITIES
            ],
            figures=summary_cards(facts),
            classes=column_names(facts),
            confusion=confusion_rows(facts),
            confused=[pair for pair in facts["most_confused"] if pair["count"] > 1],
            lowest_recall=lowest_recall(facts),
            entries=class_entries(self.records, facts, self.found),
            num_classes_left_out=max(0, len(facts["per_class"]) - MAX_ROWS),
            overall_means=overall_means(self.records),
            places=place_rows(self.records, facts),
            charts=[
                {"name": name, "curves": list(curves), "svg": line_chart(curves, name)}
                for name, curves in self.curves.items()
            ],
            reliability=reliability_chart(facts["calibration"]),
            photos=photos.values(),
            gallery=gallery_sections(preds, cards, shown, self.num_gallery),
            gallery_classes=sorted(
                {name for card in cards.values() for name in (card.label, card.prediction)}
            ),
            quarantine=self.quarantine[:MAX_QUARANTINE],
            num_quarantine_left_out=max(0, len(self.quarantine) - MAX_QUARANTINE),
            quarantine_note=quarantine_note(facts),
            map_size=" by ".join(map(str, facts["map_size"])),
            large_drop=LARGE_DROP,
            large_effect=LARGE_EFFECT,
            provenance=provenance(facts),
            version=facts["versions"]["lightwell"],
        )
