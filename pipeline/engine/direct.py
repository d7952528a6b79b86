"""What was drawn, done to pixels that others share: nothing writes into a shard, and nothing is copied in vain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..decode.plan import CROPS, CROPS_AND_RESIZES, RESIZES
from ..policy.drawing import Decision, Drawing

ONLY_READ = CROPS | CROPS_AND_RESIZES | RESIZES | {"HorizontalFlip", "VerticalFlip"}
"""Transforms that write into new memory and never into what they are given; of others nobody knows."""


def apply_to_shared(drawing: Drawing, image: np.ndarray, decisions: Sequence[Decision]) -> np.ndarray:
    """Do to pixels what was drawn, as ``Drawing.apply``, but leave ``image`` as it is where it is read-only.

    Returns:
        A picture that may still be a read-only part of ``image``.
    """
    for decision in decisions:
        if not image.flags.writeable and type(drawing.transform_of(decision.slot)).__name__ not in ONLY_READ:
            image = image.copy()
        image = drawing.apply(image, (decision,))
    return image
