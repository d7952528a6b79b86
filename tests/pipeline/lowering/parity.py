"""Compare lowered transforms with Albumentations: the same draws, the same pixels, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import albumentations as A
import cv2
import numpy as np
from lightwell.pipeline.drawing import Decision, Drawing
from lightwell.pipeline.keys import keyed_bits
from lightwell.pipeline.lowering.base import Device, Tolerance
from lightwell.pipeline.lowering.graph import LoweredGraph, Slot
from lightwell.pipeline.lowering.table import lowering_of


@dataclass(frozen=True)
class Difference:
    """Worst case over pictures."""

    max_levels: int
    min_psnr_db: float

    def within(self, tolerance: Tolerance) -> bool:
        return (tolerance.max_levels is None or self.max_levels <= tolerance.max_levels) and (
            tolerance.min_psnr_db is None or self.min_psnr_db >= tolerance.min_psnr_db
        )


def pictures() -> list[np.ndarray]:
    """Gray, tiny, odd-sized, large, flat and detailed RGB pictures, uint8 HWC."""
    rng = np.random.default_rng(5)

    def photo(height: int, width: int, detail: int) -> np.ndarray:
        coarse = rng.integers(0, 256, (max(2, height // detail), max(2, width // detail), 3), dtype=np.uint8)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)

    gray = np.repeat(photo(121, 163, 16)[..., :1], 3, axis=2)
    made = [
        photo(240, 320, 24),
        photo(333, 257, 7),
        photo(97, 101, 3),
        photo(33, 47, 8),
        photo(900, 1201, 40),
    ]
    return [
        *made,
        gray,
        np.full((64, 80, 3), 200, np.uint8),
        rng.integers(0, 256, (75, 90, 3), dtype=np.uint8),
    ]


def compare(
    transform: Any, images: Sequence[np.ndarray], *, device: Device = "cpu", num_draws: int = 3
) -> Difference:
    """Run a transform by Albumentations and by its lowering over pictures and draws; the worst difference."""
    references: list[np.ndarray] = []
    inputs: list[np.ndarray] = []
    decisions: list[tuple[Decision, ...]] = []
    drawing = Drawing(A.Compose([transform]), 1)
    for number in range(num_draws):
        for i, image in enumerate(images):
            drawn = drawing.draw(keyed_bits("parity", number, i, ""), image.shape[:2])
            reference = image
            for decision in drawn.decisions:
                reference = transform.apply(reference, **decision.params)
            assert reference.shape[:2] == drawn.size
            references.append(reference)
            inputs.append(image)
            decisions.append(drawn.decisions)
    lowering = lowering_of(type(transform).__name__)
    assert lowering is not None
    graph = LoweredGraph(
        [Slot(0, transform, lowering)],
        source="pixels",
        device=device,
        max_batch_size=len(inputs),
        num_threads=2,
    )
    outputs = graph.run(inputs, decisions)
    found = [np.array(outputs.as_cpu().at(i)) for i in range(len(inputs))]
    graph.close()
    return worst(found, references)


def worst(found: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> Difference:
    """Measure the largest difference and the lowest PSNR over pairs of pictures."""
    levels, psnr = 0, float("inf")
    for one, other in zip(found, references, strict=True):
        assert one.shape == other.shape, f"wanted {other.shape}, got {one.shape}"
        assert one.dtype == other.dtype == np.uint8
        difference = one.astype(np.int32) - other
        levels = max(levels, int(np.abs(difference).max()))
        power = float(np.mean(difference.astype(np.float64) ** 2))
        psnr = min(psnr, 10 * np.log10(255**2 / power) if power else float("inf"))
    return Difference(levels, psnr)
