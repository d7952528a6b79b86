"""MixUp and CutMix as a batch step; each image is mixed with the one before it in the batch.

Formulas: MixUp, Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018, eq. 1; CutMix, Yun et al.,
"CutMix: regularization strategy to train strong classifiers", ICCV 2019, section 3.1.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..batch import Batch
from ..keys import keyed_bits, keyed_generator
from ..plan import Mix


def mix_batch(batch: Batch, mix: Mix, *, seed: int) -> Batch:
    """Mix a batch; all draws are keyed by (seed, epoch, step), and pixels do not depend on how many share a batch.

    Returns:
        A batch whose ``partner_labels`` and ``partner_weights`` say what was mixed in; the same batch where
        the draw of ``p`` or a batch of one says not to mix.
    """
    generator = keyed_generator(keyed_bits("mix", seed, batch.epoch, str(batch.step)))
    if len(batch) < 2 or generator.random() >= mix.p:
        return batch
    share = float(generator.beta(mix.alpha, mix.alpha))
    partners = batch.images.roll(1, dims=0)
    if mix.kind == "MixUp":
        images = _blend(batch.images, partners, share)
    else:
        images, share = _paste(batch.images, partners, share, generator)
    return replace(
        batch,
        images=images,
        partner_labels=batch.labels.roll(1, dims=0),
        partner_weights=torch.full((len(batch),), 1.0 - share),
    )


def _blend(images: torch.Tensor, partners: torch.Tensor, share: float) -> torch.Tensor:
    if images.dtype == torch.uint8:
        # Two roundings, not a fused one: which pixels torch fuses depends on the size of the batch.
        mixed = images.float().mul_(share).add_(partners.float().mul_(1.0 - share))
        return mixed.round_().to(torch.uint8)
    return images * share + partners * (1.0 - share)


def _paste(
    images: torch.Tensor, partners: torch.Tensor, share: float, generator: np.random.Generator
) -> tuple[torch.Tensor, float]:
    channels_last = images.dtype == torch.uint8  # uint8 NHWC, float NCHW
    height, width = images.shape[1:3] if channels_last else images.shape[2:4]
    cut = np.sqrt(1.0 - share) / 2
    y, x = generator.integers(height), generator.integers(width)
    y0, y1 = np.clip([round(y - cut * height), round(y + cut * height)], 0, height)
    x0, x1 = np.clip([round(x - cut * width), round(x + cut * width)], 0, width)
    mixed = images.clone()
    if channels_last:
        mixed[:, y0:y1, x0:x1] = partners[:, y0:y1, x0:x1]
    else:
        mixed[:, :, y0:y1, x0:x1] = partners[:, :, y0:y1, x0:x1]
    return mixed, 1.0 - float((y1 - y0) * (x1 - x0)) / (height * width)
