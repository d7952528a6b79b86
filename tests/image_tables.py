"""Tables of images with made-up maps, for tests of the searches."""

from __future__ import annotations

from typing import Any

import numpy as np
from lightwell.models.audits.gradcam.suspects.image_table import ImageTable, evidence_shares
from lightwell.pipeline.rng import numpy_generator

SIDE = 7


def image_table(num_classes: int = 4, num_each: int = 50, *, seed: int = 0, **changes: Any) -> ImageTable:
    """Return images whose evidence lies around the middle, with random features of their class."""
    generator = numpy_generator(seed)
    num = num_classes * num_each
    labels = np.repeat(np.arange(num_classes), num_each)
    y, x = np.mgrid[:SIDE, :SIDE]
    centre = generator.normal(3, 0.7, (num, 2, 1, 1))
    maps = np.exp(-((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2) / 4) * generator.random(
        (num, SIDE, SIDE)
    )
    features = generator.normal(size=(num, 8)) + 3 * np.eye(8)[labels % 8]
    columns: dict[str, Any] = {
        "keys": np.array([f"{label}/{row:04d}.jpg" for row, label in enumerate(labels)], object),
        "classes": labels,
        "by_label": True,
        "labels": labels,
        "predictions": labels.copy(),
        "confidences": np.full(num, 0.95, np.float32),
        "shares": evidence_shares(maps.astype(np.float32)),
        "map_size": (SIDE, SIDE),
        "features": features.astype(np.float32),
        "evidence_features": features.astype(np.float32),
        "names": [f"class{number}" for number in range(num_classes)],
        "seed": 0,
    }
    return ImageTable(**(columns | changes))


def plant(table: ImageTable, rows: np.ndarray, share: float = 0.6) -> None:
    """Move evidence of some images into the lower left corner."""
    mark = np.zeros((SIDE, SIDE), np.float32)
    mark[-2:, :2] = 0.25
    table.shares[rows] = (1 - share) * table.shares[rows] + share * mark
