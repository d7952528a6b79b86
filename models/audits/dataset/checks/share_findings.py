"""Findings about a share of the images: what single images show, without a comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...findings.finding import MAX_KEYS, Advice, Effect, Finding, Null, Severity, finding_id
from ...findings.intervals import wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...findings.finding import DatasetKind
    from ..dataset_table import DatasetTable


def share_finding(
    table: DatasetTable,
    subject: tuple[DatasetKind, str, Severity],
    rows: NDArray[np.intp],
    num_images: int,
    phrase: str,
    advice: str,
) -> Finding:
    """Return a finding about images that show something, as a share of those looked at.

    Args:
        table: of the dataset.
        subject: kind and name, which make the id, and severity.
        rows: images that show it, the strongest first.
        num_images: images looked at.
        phrase: completes "images", for example ``are dark``.
        advice: what to do.
    """
    kind, name, severity = subject
    low, high = wilson(len(rows), num_images) or (None, None)
    return Finding(
        id=finding_id(kind, name),
        kind=kind,
        severity=severity,
        class_name=None,
        class_number=-1,
        group=None,
        sentence=f"{len(rows):,} of {num_images:,} images {phrase}.",
        effect=Effect(len(rows) / num_images, "share of images", low, high),
        null=Null(None),
        num_images=num_images,
        num_concerned=len(rows),
        keys=table.keys_of(rows[:MAX_KEYS]),
        advice=Advice(advice),
    )
