"""Cache placement: after the longest run of leading ``preprocess`` transforms that yield RGB pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..policy.registry import is_composition
from ..transform.output_shapes import CROPS, CROPS_AND_RESIZES, RESIZES, needs_pixels_reason
from ..transform.params import leaf_transforms


def count_cacheable(preprocess: Sequence[Any]) -> int:
    """Count the leading transforms whose result can be cached.

    ``preprocess`` is deterministic, which the compiler has checked. So the cache is placed before the first transform
    that depends on pixels, does not yield uint8 RGB, or depends on boxes or masks, which are not part of a cache key.
    """
    for number, transform in enumerate(preprocess):
        if needs_pixels_reason(transform) or any(
            leaf.targets_as_params for leaf in leaf_transforms([transform])
        ):
            return number
    return len(preprocess)


def reducible_past_cache(cached: Sequence[Any], after: Sequence[Any]) -> str:
    """Return the resize after the cache that a reduced decode could include; empty if there is none.

    A reduced decode combines the leading crops with the following resize. With the cache between them, cached images
    would differ from those produced without a cache.
    """
    if not all(type(transform).__name__ in CROPS for transform in cached):
        return ""
    for transform in after:
        for leaf in leaf_transforms([transform]):
            name = type(leaf).__name__
            if name in CROPS_AND_RESIZES | RESIZES:
                return name
        if not is_composition(transform) and transform.p >= 1 and type(transform).__name__ not in CROPS:
            return ""  # always applied before any later resize
    return ""
