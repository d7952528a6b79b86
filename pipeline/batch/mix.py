"""MixUp and CutMix as a batch step; each image is mixed with the one before it in the batch.

Formulas: MixUp, Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018, eq. 1; CutMix, Yun et al.,
"CutMix: regularization strategy to train strong classifiers", ICCV 2019, section 3.1. How annotations are mixed is in
``mixed_annotations``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..plan.plan import BboxParams, Mix
from ..rng import keyed_bits, keyed_generator
from .batch import Batch
from .mix_annotations import Rectangle, cutmix_annotations, mixup_annotations


def mix_batch(batch: Batch, mix: Mix, *, seed: int, bbox_params: BboxParams) -> Batch:
    """Mix a batch; all draws are keyed by (seed, epoch, step), and pixels do not depend on how many share a batch.

    Args:
        batch: finished images.
        mix: which mix, and how strong.
        seed: of the plan.
        bbox_params: which boxes stay where they are covered or cut.

    Returns:
        A batch whose ``mixed_labels`` and ``mixed_weights`` tell what was mixed in, with the annotations of both
        images; the same batch where the draw of ``p`` or a batch of one means not to mix.
    """
    generator = keyed_generator(keyed_bits("mix", seed, batch.epoch, str(batch.step)))
    if len(batch) < 2 or generator.random() >= mix.p:
        return batch
    share = float(generator.beta(mix.alpha, mix.alpha))
    partners = batch.images.roll(1, dims=0)
    if mix.kind == "MixUp":
        images = _blend(batch.images, partners, share)
        batch = mixup_annotations(batch)
    else:
        height, width = _size(batch.images)
        rectangle = _draw_rectangle(height, width, share, generator)
        images = _paste(batch.images, partners, rectangle)
        share = 1.0 - rectangle.area / (height * width)
        batch = cutmix_annotations(batch, rectangle, bbox_params)
    return replace(
        batch,
        images=images,
        mixed_labels=batch.labels.roll(1, dims=0),
        mixed_weights=torch.full((len(batch),), 1.0 - share),
    )


def _blend(images: torch.Tensor, partners: torch.Tensor, share: float) -> torch.Tensor:
    if images.dtype == torch.uint8:
        # Two roundings, not a fused one: which pixels torch fuses depends on the size of the batch.
        mixed = images.float().mul_(share).add_(partners.float().mul_(1.0 - share))
        return mixed.round_().to(torch.uint8)
    return images * share + partners * (1.0 - share)


def _size(images: torch.Tensor) -> tuple[int, int]:
    """Return height and width of images, uint8 NHWC or float NCHW."""
    height, width = images.shape[1:3] if images.dtype == torch.uint8 else images.shape[2:4]
    return height, width


def _draw_rectangle(height: int, width: int, share: float, generator: np.random.Generator) -> Rectangle:
    cut = np.sqrt(1.0 - share) / 2
    y, x = generator.integers(height), generator.integers(width)
    y0, y1 = np.clip([round(y - cut * height), round(y + cut * height)], 0, height).tolist()
    x0, x1 = np.clip([round(x - cut * width), round(x + cut * width)], 0, width).tolist()
    return Rectangle(x0, y0, x1, y1)


def _paste(images: torch.Tensor, partners: torch.Tensor, rectangle: Rectangle) -> torch.Tensor:
    mixed = images.clone()
    if images.dtype == torch.uint8:
        mixed[:, *rectangle.slices] = partners[:, *rectangle.slices]
    else:
        mixed[:, :, *rectangle.slices] = partners[:, :, *rectangle.slices]
    return mixed
