"""Precision, recall and F1 of every class, from a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def per_class_table(confusion: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each class: images, predictions, precision, recall and F1; None where undefined.

    Args:
        confusion: shape (classes, classes); rows are true classes, columns predicted ones.
        classes: names.
    """
    rows = []
    for number, name in enumerate(classes):
        hits, images = int(confusion[number, number]), int(confusion[number].sum())
        predicted = int(confusion[:, number].sum())
        rows.append(
            {
                "class": name,
                "images": images,
                "predicted": predicted,
                "precision": hits / predicted if predicted else None,
                "recall": hits / images if images else None,
                "f1": 2 * hits / (images + predicted) if images + predicted else None,
            }
        )
    return rows
