"""A plan with another size of its training images: which transform sets it, and whether it can be changed."""

from __future__ import annotations

from typing import Any

from ..errors import PlanError
from ..geometry import Size
from ..plan.plan import Plan
from ..policy.spec import TransformSpec
from ..transform.output_shapes import CROPS
from ..transform.params import leaf_transforms

_BY_SIDES = frozenset({"RandomSizedBBoxSafeCrop", "Resize"})
_BY_SIZE = frozenset({"RandomResizedCrop", "RandomSizedCrop"})
_RESIZING = _BY_SIDES | _BY_SIZE
"""They resize to a size that they state: in ``height`` and ``width``, or in ``size``."""
_OTHERS = CROPS | {"CropAndPad", "LongestMaxSize", "Pad", "PadIfNeeded", "RandomScale", "SmallestMaxSize"}
"""They change the size in another way."""


def plan_with_size(plan: Plan, size: Size) -> Plan:
    """Return a plan whose training images have a smaller size; its evaluation is not to be used.

    The last transform that changes the size gets the new one. Those after it stay, also where they count in pixels.

    Raises:
        PlanError: that transform does not always resize to a stated size, or is cached, or states a smaller one.
    """
    for policy in ("augment", "preprocess"):
        specs: tuple[TransformSpec, ...] = getattr(plan, policy)
        for number in reversed(range(len(specs))):
            where = f"{policy}[{number}]"
            built: Any = specs[number].build(where)
            if not any(type(leaf).__name__ in _RESIZING | _OTHERS for leaf in leaf_transforms([built])):
                continue
            if policy == "preprocess" and plan.cache is not None:
                raise _refusal(f"{where}.{specs[number].name}, whose images the cache holds")
            changed = _resized(specs[number], built, size, where)
            kept = (*specs[:number], changed, *specs[number + 1 :])
            return plan.model_copy(update={policy: kept, "progressive_size": None})
    raise _refusal("none")


def _resized(spec: TransformSpec, built: Any, size: Size, where: str) -> TransformSpec:
    """Return a transform with another size."""
    where = f"{where}.{spec.name}"
    if spec.children or spec.name not in _RESIZING:
        raise _refusal(where)
    if built.p < 1:
        raise _refusal(f"{where} with p: {built.p:g}")
    own = built.size if spec.name in _BY_SIZE else (built.height, built.width)
    if size[0] > own[0] or size[1] > own[1]:
        raise PlanError(
            f"progressive_size: expected at most {list(own)}, the size of {where}, got {list(size)}; lower it"
        )
    sides = {"size": list(size)} if spec.name in _BY_SIZE else {"height": size[0], "width": size[1]}
    return spec.model_copy(update={"options": {**spec.options, **sides}})


def _refusal(got: str) -> PlanError:
    return PlanError(
        f"progressive_size: expected {', '.join(sorted(_RESIZING))}, always applied, as the last transform that changes the "
        f"size of training images, got {got}; end augment with Resize and the plan's height and width"
    )
