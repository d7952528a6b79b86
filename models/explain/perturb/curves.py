"""Deletion and insertion curves: how a class's probability changes as the most important pixels go or come.

Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018, section 4.1: a good map
makes the probability fall early when its strongest pixels are deleted, and rise early when they are inserted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..measures.upsampling import Size, axis_matrix
from .fill import Removal, blur, fill_constant

if TYPE_CHECKING:
    from numpy.typing import NDArray

Probabilities = Callable[[torch.Tensor], torch.Tensor]
"""Maps images (N, C, H, W) to probabilities of classes (N, K)."""
INSERTION_BLUR = 0.05
"""Standard deviation of the blurred image from which insertion starts, as a fraction of the short side; 11 px at 224."""


def deletion_ranks(maps: NDArray[Any], image_size: Size) -> torch.Tensor:
    """Rank pixels by the upsampled map, in 0..1: 0 for the strongest, in reading order where equal; (N, H, W)."""
    rows, columns = axis_matrix(maps.shape[1], image_size[0]), axis_matrix(maps.shape[2], image_size[1])
    pixels = (rows @ maps.astype(np.float64) @ columns.T).reshape(len(maps), -1)
    order = np.argsort(-pixels, axis=1, kind="stable")
    ranks = np.empty_like(pixels)
    np.put_along_axis(ranks, order, np.arange(pixels.shape[1])[None] / pixels.shape[1], axis=1)
    return torch.from_numpy(ranks.reshape(len(maps), *image_size))


def random_maps(num: int, map_size: Size, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return maps (N, h, w) with cells in random order: the baseline of a curve, of the granularity of a map."""
    cells = np.tile(np.arange(map_size[0] * map_size[1], dtype=np.float64), (num, 1))
    return np.asarray(generator.permuted(cells, axis=1).reshape(num, *map_size))


def deletion_curve(
    probabilities: Probabilities,
    images: torch.Tensor,
    classes: torch.Tensor,
    ranks: torch.Tensor,
    *,
    steps: int = 8,
    remove: Removal = fill_constant,
) -> torch.Tensor:
    """Return the probability of each image's class after each step of deletion, (N, steps + 1), from none to all deleted.

    Args:
        probabilities: the model; called ``steps + 1`` times with N images.
        images: (N, C, H, W).
        classes: (N,).
        ranks: of the pixels, from ``deletion_ranks``.
        steps: equal shares of the pixels.
        remove: how pixels are deleted.
    """
    curve = []
    for step in range(steps + 1):
        changed = images if step == 0 else remove(images, ranks < step / steps)
        curve.append(probabilities(changed).gather(1, classes[:, None].to(images.device))[:, 0])
    return torch.stack(curve, dim=1)


def insertion_curve(
    probabilities: Probabilities,
    images: torch.Tensor,
    classes: torch.Tensor,
    ranks: torch.Tensor,
    *,
    steps: int = 8,
) -> torch.Tensor:
    """Return the probability of each image's class after each step of insertion into the blurred image, (N, steps + 1)."""
    blurred = blur(images, INSERTION_BLUR * min(images.shape[2:]))
    curve = []
    for step in range(steps + 1):
        shown = (ranks < step / steps)[:, None].to(images.device)
        changed = torch.where(shown, images, blurred)
        curve.append(probabilities(changed).gather(1, classes[:, None].to(images.device))[:, 0])
    return torch.stack(curve, dim=1)


def area_under(curves: torch.Tensor) -> torch.Tensor:
    """Return the area (N,) under curves (N, steps + 1) over the share of pixels, 0..1, by the trapezoidal rule."""
    return ((curves[:, 1:] + curves[:, :-1]) / 2).mean(dim=1)
