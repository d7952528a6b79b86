"""MixUp and CutMix on batches; each image is mixed with the previous one in the batch.

Formulas: MixUp, Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018, eq. 1; CutMix, Yun et al.,
"CutMix: regularization strategy to train strong classifiers", ICCV 2019, section 3.1. Annotations are mixed in
``mix_annotations``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..plan.plan import BboxParams, Mix
from ..rng import derive_seed, numpy_generator
from .batch import Batch
from .mix_annotations import Rectangle, cutmix_annotations, mixup_annotations


def mix_batch(batch: Batch, mix: Mix, *, seed: int, bbox_params: BboxParams) -> Batch:
    """Apply MixUp or CutMix to a batch, with random numbers seeded by (seed, epoch, step).

    Args:
        batch: transformed images.
        mix: kind and strength.
        seed: of the plan.
        bbox_params: thresholds for keeping covered or clipped boxes.

    Returns:
        A batch with the labels of both images, ``mixed_weights`` and the annotations of both images; the same batch if ``p``
        decides against mixing, after ``until_epoch``, or if there is only one image.
    """
    if mix.until_epoch is not None and batch.epoch >= mix.until_epoch:
        return batch
    generator = numpy_generator(derive_seed("mix", seed, batch.epoch, str(batch.step)))
    if len(batch) < 2 or generator.random() >= mix.p:
        return batch
    share = float(generator.beta(mix.alpha, mix.alpha))
    others = batch.images.roll(1, dims=0)
    if mix.kind == "MixUp":
        images = _blend(batch.images, others, share)
        batch = mixup_annotations(batch)
    else:
        height, width = _size(batch.images)
        rectangle = _sample_rectangle(height, width, share, generator)
        images = _paste(batch.images, others, rectangle)
        share = 1.0 - rectangle.area / (height * width)
        batch = cutmix_annotations(batch, rectangle, bbox_params)
    return replace(
        batch,
        images=images,
        mixed_labels=batch.labels.roll(1, dims=0),
        mixed_label_sets=None if batch.label_sets is None else batch.label_sets.roll(1, dims=0),
        mixed_weights=torch.full((len(batch),), 1.0 - share),
    )


def _blend(images: torch.Tensor, others: torch.Tensor, share: float) -> torch.Tensor:
    if images.dtype == torch.uint8:
        # No fused multiply-add: which pixels torch fuses depends on the batch size.
        mixed = images.float().mul_(share).add_(others.float().mul_(1.0 - share))
        return mixed.round_().to(torch.uint8)
    return images * share + others * (1.0 - share)


def _size(images: torch.Tensor) -> tuple[int, int]:
    """Return height and width of images, uint8 NHWC or float NCHW."""
    height, width = images.shape[1:3] if images.dtype == torch.uint8 else images.shape[2:4]
    return height, width


def _sample_rectangle(height: int, width: int, share: float, generator: np.random.Generator) -> Rectangle:
    cut = np.sqrt(1.0 - share) / 2
    y, x = generator.integers(height), generator.integers(width)
    y0, y1 = np.clip([round(y - cut * height), round(y + cut * height)], 0, height).tolist()
    x0, x1 = np.clip([round(x - cut * width), round(x + cut * width)], 0, width).tolist()
    return Rectangle(x0, y0, x1, y1)


def _paste(images: torch.Tensor, others: torch.Tensor, rectangle: Rectangle) -> torch.Tensor:
    mixed = images.clone()
    if images.dtype == torch.uint8:
        mixed[:, *rectangle.slices] = others[:, *rectangle.slices]
    else:
        mixed[:, :, *rectangle.slices] = others[:, :, *rectangle.slices]
    return mixed
