"""Second opinions on a map: attributions by other methods, their agreement with it, and what each costs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from ..measures.agreement import rank_correlations, top_overlaps
from .methods import SEGMENTS, Model, Question, attribute
from .names import Method
from .segments import superpixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHOWN = 28
"""Rows and columns of kept attributions: finer than maps, small enough to keep."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """Attribution of an image by one method."""

    method: Method
    attribution: NDArray[np.float32]
    """Mean of the pixels on a grid of `SHOWN` x `SHOWN` cells, signed, in the units of the method."""
    rank_correlation: float
    """Spearman's, of the attribution on the map's grid with the signed map; NaN if either is constant."""
    top_overlap: float
    """Share of the map's strongest tenth of cells that are also the attribution's; about 0.1 by chance."""
    num_forward: int
    """Images that went through the model."""
    seconds: float


@dataclass(slots=True)
class _Counter:
    """Counts the images that go through a model."""

    model: Model
    num_images: int = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.num_images += len(images)
        return self.model(images)


def ask_others(
    model: Model,
    image: torch.Tensor,
    output: int,
    map_signed: NDArray[np.float32],
    methods: Sequence[Method],
    *,
    baseline: torch.Tensor,
    seed: int = 0,
) -> tuple[Opinion, ...]:
    """Explain an image by other methods and compare them with its map.

    Args:
        model: maps images to logits, in eval mode.
        image: input of the model, (1, C, H, W).
        output: the class that the map explains.
        map_signed: the map before the ReLU, (h, w).
        methods: in the order of the result.
        baseline: the image without content, (1, C, H, W).
        seed: of methods that sample.

    Raises:
        PlanError: Captum is not installed.
    """
    question = Question(image, output, baseline, superpixels(image, SEGMENTS), seed)
    found = []
    for method in methods:
        counter, start = _Counter(model), time.perf_counter()
        pixels = torch.from_numpy(attribute(counter, method, question))[None, None]
        seconds = time.perf_counter() - start
        on_map = functional.adaptive_avg_pool2d(pixels, map_signed.shape)[:, 0].numpy()
        found.append(
            Opinion(
                method,
                functional.adaptive_avg_pool2d(pixels, (SHOWN, SHOWN))[0, 0].numpy(),
                float(rank_correlations(map_signed[None], on_map)[0]),
                float(top_overlaps(map_signed[None], on_map)[0]),
                counter.num_images,
                seconds,
            )
        )
    return tuple(found)
