"""On a GPU all operators on images run there, and successive lowerings combine."""

from __future__ import annotations

from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
from lightwell.pipeline.transform.dali.op_registry import lowering_of

from .parity import compare, graph_of, pictures
from .test_colors import TRANSFORMS as COLORS
from .test_filters import ON_A_GPU_ONLY
from .test_filters import TRANSFORMS as FILTERS
from .test_levels import TRANSFORMS as LEVELS
from .test_noise import TRANSFORMS as NOISE

ON_THE_HOST = {"Split", "ValidateLogical", "Not_", "ArithmeticGenericOp", "TensorSubscript"}
"""Operators on flags and sampled orders."""
TAKE_HOST_ARGUMENTS = {"Split", "Merge", "WarpAffine", "JpegCompressionDistortion", "MedianBlur"}
"""Operators on a GPU that take flags, matrices and the like from the host."""


@pytest.mark.parametrize(
    "transform", [*LEVELS, *COLORS, *FILTERS, *NOISE, *ON_A_GPU_ONLY], ids=lambda t: type(t).__name__
)
def test_operators_on_images_run_on_the_gpu(transform: Any) -> None:
    graph = graph_of([transform], "gpu")
    placed = graph.placements()
    assert placed[0].device == placed[-1].device == "gpu", "pictures come from the GPU and stay there"
    assert {place.operator for place in placed if place.device != "gpu"} <= ON_THE_HOST
    for node in graph._pipeline._ops:
        name = node.name.strip("_").split("_")[0]
        if node.spec.OutputDevice(0) == "gpu" and name not in TAKE_HOST_ARGUMENTS:
            assert {one.device for one in node.inputs} <= {"gpu"}, node.name


def albumentations_can(transform: Any, picture: np.ndarray) -> bool:
    """Return whether Albumentations alone can apply a transform to an image several times."""
    alone = A.Compose([transform], seed=1)
    try:
        return all(alone(image=picture)["image"].ndim == 3 for _ in range(8))
    except (ValueError, OverflowError, RuntimeWarning, cv2.error):
        return False


SPECKS = [(1, 1), (1, 7), (5, 1), (2, 3), (3, 2), (4, 9)]


@pytest.mark.parametrize("transform", [*LEVELS, *COLORS, *FILTERS, *NOISE], ids=lambda t: type(t).__name__)
def test_images_of_a_few_pixels_equal_albumentations(transform: Any) -> None:
    rng = np.random.default_rng(7)
    lowering = lowering_of(type(transform).__name__)
    assert lowering is not None
    specks = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SPECKS]
    usable = [one for one in specks if albumentations_can(transform, one)]  # ToGray rejects a single column
    if not usable:
        pytest.skip("Albumentations applies it to none of them")
    for batch in ([one for one in usable if one.size == 3], [one for one in usable if one.size > 3]):
        found = compare(transform, batch, num_draws=2) if batch else None
        assert found is None or found.within(lowering.tolerance_of(transform)), found


def test_successive_lowerings_add_up() -> None:
    chain = [
        A.RandomResizedCrop((64, 72), p=1),
        A.OneOf([A.Posterize(), A.Solarize(), A.ChannelShuffle()], p=1),
        A.HorizontalFlip(p=0.5),
        A.ToGray(p=0.5),
        A.OneOf([A.InvertImg(), A.SaltAndPepper(), A.RGBShift()], p=0.7),
        A.PixelDropout(p=0.5),
    ]
    listed = [leaf for step in chain for leaf in getattr(step, "transforms", [step])]
    found = compare(listed, pictures(), num_draws=2)
    assert found.min_psnr_db > 35
