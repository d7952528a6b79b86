"""Where a cache sits: behind the longest beginning of ``preprocess`` that is deterministic and yields RGB pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..policy.registry import is_composition
from ..transform.output_shapes import CROPS, CROPS_AND_RESIZES, RESIZES, needs_pixels_reason
from ..transform.params import leaf_transforms


def count_cacheable(preprocess: Sequence[Any]) -> int:
    """Count the leading transforms whose result is cached.

    ``preprocess`` draws nothing, which the compiler has checked. So the beginning ends with the first transform that
    looks at pixels or yields something else than uint8 RGB, or that looks at boxes or masks: the key of a cached
    picture does not know of those.
    """
    for number, transform in enumerate(preprocess):
        if needs_pixels_reason(transform) or any(
            leaf.targets_as_params for leaf in leaf_transforms([transform])
        ):
            return number
    return len(preprocess)


def reducible_past_cache(cached: Sequence[Any], behind: Sequence[Any]) -> str:
    """Name the transform behind the cache that a reduced decode could reach from a picture's file; empty if none.

    A reduced decode joins the leading crops with the resize behind them. If the cache lay between them, pictures out
    of the cache would not be those that are made without one.
    """
    if not all(type(transform).__name__ in CROPS for transform in cached):
        return ""
    for transform in behind:
        for leaf in leaf_transforms([transform]):
            name = type(leaf).__name__
            if name in CROPS_AND_RESIZES | RESIZES:
                return name
        if not is_composition(transform) and transform.p >= 1 and type(transform).__name__ not in CROPS:
            return ""  # always stands between the file and any resize behind it
    return ""
