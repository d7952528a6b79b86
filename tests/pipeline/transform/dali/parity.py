"""Compare lowered transforms with Albumentations for the same sampled parameters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import albumentations as A
import cv2
import numpy as np
from lightwell.pipeline.rng import derive_seed
from lightwell.pipeline.transform.dali.graph import GraphTransform, LoweredGraph
from lightwell.pipeline.transform.dali.lowering import Device, Tolerance
from lightwell.pipeline.transform.dali.op_registry import lowering_of, unsupported_reason
from lightwell.pipeline.transform.params import ParamSampler, TransformCall, leaf_transforms


@dataclass(frozen=True)
class Difference:
    """Worst case over pictures."""

    max_levels: int
    min_psnr_db: float

    def within(self, tolerance: Tolerance) -> bool:
        return (tolerance.max_levels is None or self.max_levels <= tolerance.max_levels) and (
            tolerance.min_psnr_db is None or self.min_psnr_db >= tolerance.min_psnr_db
        )


def described(value: object) -> str:
    """Describe a transform and its options for the name of a test, the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


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


BOXES = [[0.2, 0.3, 0.5, 0.65, 1], [0.45, 0.4, 0.8, 0.9, 2]]
"""Relative left, top, right, bottom and a label, on every image for transforms that draw from boxes."""
DRAW_FROM_BOXES = {
    "AtLeastOneBBoxRandomCrop",
    "BBoxSafeRandomCrop",
    "ConstrainedCoarseDropout",
    "RandomSizedBBoxSafeCrop",
}


def compare(
    transforms: Any,
    images: Sequence[np.ndarray],
    *,
    device: Device = "cpu",
    num_draws: int = 3,
) -> Difference:
    """Run transforms in Albumentations and in one graph of their lowerings; return the worst difference.

    Args:
        transforms: one, or some in sequence, compositions among them.
        images: RGB pictures.
        device: where the graph runs.
        num_draws: how often parameters are sampled for each image.
    """
    listed = [*transforms] if isinstance(transforms, Sequence) else [transforms]
    leaves = list(leaf_transforms(listed))
    with_boxes = any(type(leaf).__name__ in DRAW_FROM_BOXES for leaf in leaves)
    params = A.BboxParams("albumentations") if with_boxes else None
    param_sampler = ParamSampler(A.Compose(listed, bbox_params=params), len(listed))
    targets = {"bboxes": np.array(BOXES)} if with_boxes else {}
    references: list[np.ndarray] = []
    inputs: list[np.ndarray] = []
    calls: list[tuple[TransformCall, ...]] = []
    for number in range(num_draws):
        for i, image in enumerate(images):
            sampled = param_sampler.sample(derive_seed("parity", number, i, ""), image.shape[:2], **targets)
            reference = image
            for call in sampled.calls:
                assert reference.shape[:2] == call.size
                reference = leaves[call.transform_index].apply(reference, **call.params)
            assert reference.shape[:2] == sampled.size
            references.append(reference)
            inputs.append(image)
            calls.append(sampled.calls)
    graph = graph_of(leaves, device, len(inputs))
    outputs = graph.run(inputs, calls)
    found = [np.array(outputs.as_cpu().at(i)) for i in range(len(inputs))]
    graph.close()
    return worst(found, references)


def assert_parity(
    transform: Any, images: Sequence[np.ndarray], *, device: Device = "cpu", num_draws: int = 2
) -> None:
    """Check that a lowering supports a transform's options within its declared tolerance."""
    lowering = lowering_of(type(transform).__name__)
    assert lowering is not None, f"{type(transform).__name__} is not lowered"
    assert unsupported_reason(transform, device=device, approximate=True) == ""
    found = compare(transform, images, device=device, num_draws=num_draws)
    tolerance = lowering.tolerance_of(transform)
    assert found.within(tolerance), f"expected {tolerance}, got {found}"


def graph_of(transforms: Sequence[Any], device: Device, max_batch_size: int = 1) -> LoweredGraph:
    """Build the graph of lowered transforms, from pixels."""
    members = []
    for number, transform in enumerate(transforms):
        lowering = lowering_of(type(transform).__name__)
        assert lowering is not None, f"{type(transform).__name__} is not lowered"
        members.append(GraphTransform(number, transform, lowering))
    return LoweredGraph(members, source="pixels", device=device, max_batch_size=max_batch_size, num_threads=2)


def worst(found: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> Difference:
    """Measure the largest difference and the lowest PSNR over pairs of pictures."""
    levels, psnr = 0, float("inf")
    for one, other in zip(found, references, strict=True):
        assert one.shape == other.shape, f"expected {other.shape}, got {one.shape}"
        assert one.dtype == other.dtype == np.uint8
        difference = one.astype(np.int32) - other
        levels = max(levels, int(np.abs(difference).max()))
        power = float(np.mean(difference.astype(np.float64) ** 2))
        psnr = min(psnr, 10 * np.log10(255**2 / power) if power else float("inf"))
    return Difference(levels, psnr)
