"""Sections of a plan to paste, in which the step that a finding names is changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...findings.finding import Advice
from ..effects.plan_steps import Section, Step, changed_section, section_yaml, with_options

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .....pipeline.plan.plan import Plan
    from .....pipeline.policy.spec import TransformSpec

SCALES = (0.25, 0.35, 0.5, 0.65, 0.8)
"""Smallest shares of the image that a random resized crop is advised to keep."""
SMALLEST_SIDE = 32
"""Sizes of images are multiples of it."""
NEUTRAL: Mapping[str, Mapping[str, float]] = {
    "RandomBrightnessContrast": {"brightness_limit": 0, "contrast_limit": 0},
    "ColorJitter": {"brightness": 1, "contrast": 1, "saturation": 1},
    "RandomGamma": {"gamma_limit": 100},
    "HueSaturationValue": {"sat_shift_limit": 0, "val_shift_limit": 0},
    "RGBShift": {"r_shift_limit": 0, "g_shift_limit": 0, "b_shift_limit": 0},
    "RandomToneCurve": {"scale": 0},
    "GaussNoise": {"std_range": 0},
}
"""Options whose ranges change levels, with the value that changes none."""
STRONG_SHARE = 0.3
"""Share of views from which on ranges are quartered instead of halved."""
_SIDES: Mapping[str, Sequence[str]] = {
    "Resize": ("height", "width"),
    "SmallestMaxSize": ("max_size",),
    "LongestMaxSize": ("max_size",),
    "CenterCrop": ("height", "width"),
    "RandomCrop": ("height", "width"),
    "RandomSizedBBoxSafeCrop": ("height", "width"),
    "RandomResizedCrop": ("size",),
    "PadIfNeeded": ("min_height", "min_width"),
}
"""Options that state a size in pixels."""
_FIXED = frozenset({"CenterCrop", "RandomCrop", "Crop"})


def crop_advice(
    plan: Plan, step: Step, kept: NDArray[np.float64], lost: NDArray[np.bool_], max_share: float
) -> Advice:
    """Return advice against a step that cuts objects off.

    Args:
        plan: with the step.
        step: that loses the most.
        kept: share of the image in the view, for each view of an object.
        lost: views in which the object is lost.
        max_share: of the views in which it may be lost.
    """
    if step.spec.name == "RandomResizedCrop":
        scale = _smallest_scale(kept, lost, max_share)
        text = f"Keep at least {100 * scale:.0f} % of the image: of the views measured, those that do lose few objects."
        return Advice(text, _changed(plan, step, lambda spec: with_options(spec, scale=[scale, 1.0])))
    if step.spec.name in _FIXED and step.section != "augment":
        return Advice("Fit the whole image into the input instead of cutting it.", _letterboxed(plan, step))
    if step.spec.name in _FIXED and {"height", "width"} <= step.spec.options.keys():
        size = [step.spec.options[name] for name in ("height", "width")]
        crop: dict[str, Any] = {"size": size, "scale": [SCALES[2], 1.0]}
        text = "Crop a share of the image instead of a number of pixels."
        return Advice(text, _changed(plan, step, lambda spec: (_spec(spec, "RandomResizedCrop", crop),)))
    return Advice(
        f"Narrow the ranges of {step.title}, or keep objects with a box-aware crop, and measure again."
    )


def _smallest_scale(kept: NDArray[np.float64], lost: NDArray[np.bool_], max_share: float) -> float:
    """Return the smallest scale above which few objects are lost: a crop's area is drawn uniformly, so those views are its own."""
    for scale in SCALES:
        views = kept >= scale
        if views.any() and lost[views].mean() < max_share / 2:
            return scale
    return SCALES[-1]


def weaker_advice(plan: Plan, step: Step, share: float) -> Advice:
    """Return advice to narrow the ranges of a step that changes levels too much.

    Args:
        plan: with the step.
        step: that changes the most.
        share: of the views that it changes too much.
    """
    neutral = NEUTRAL.get(step.spec.name)
    if neutral is None:
        return Advice(f"Narrow the ranges of {step.title}, and measure again.")
    factor = 0.25 if share >= STRONG_SHARE else 0.5
    built = step.spec.build(step.path)
    options = {
        name: _narrowed(value, middle, factor)
        for name, middle in neutral.items()
        if isinstance(value := getattr(built, name, None), int | float | tuple)
    }
    text = (
        f"Narrow the ranges of {step.title} to {'a quarter' if factor < 0.5 else 'half'}, and measure again."
    )
    return Advice(text, _changed(plan, step, lambda spec: with_options(spec, **options)))


def _narrowed(value: float | tuple[float, ...], middle: float, factor: float) -> Any:
    if isinstance(value, tuple):
        return [_narrowed(limit, middle, factor) for limit in value]
    return round(middle + factor * (value - middle), 4)


def resize_advice(plan: Plan, side: int, goal: float) -> Advice:
    """Return advice for a smaller input.

    Args:
        plan: whose images are enlarged.
        side: of its output, in pixels.
        goal: by what it is too large.
    """
    smaller = int(side / goal) // SMALLEST_SIDE * SMALLEST_SIDE
    if goal <= 1 or not SMALLEST_SIDE <= smaller < side:
        return Advice("Drop the smallest images, or train on smaller inputs: enlarging adds no detail.")
    text = f"Train and evaluate at {smaller} px: enlarging adds no detail, and costs time with the square of the size."
    sections: tuple[Section, ...] = ("preprocess", "augment", "evaluate")
    changed = {
        name: changed_section(specs, lambda _, spec: _scaled(spec, smaller / side))
        for name in sections
        if (specs := getattr(plan, name))
    }
    kept = {name: specs for name, specs in changed.items() if tuple(specs) != getattr(plan, name)}
    return Advice(text, section_yaml(kept) if kept else "")


def _scaled(spec: TransformSpec, factor: float) -> Sequence[TransformSpec] | None:
    names = [name for name in _SIDES.get(spec.name, ()) if spec.options.get(name) is not None]
    if not names:
        return None
    return with_options(spec, **{name: _times(spec.options[name], factor) for name in names})


def _times(value: Any, factor: float) -> Any:
    return (
        [_times(one, factor) for one in value] if isinstance(value, list) else max(1, round(value * factor))
    )


def _changed(plan: Plan, step: Step, change: Callable[[TransformSpec], Sequence[TransformSpec]]) -> str:
    specs = changed_section(
        getattr(plan, step.section), lambda number, spec: change(spec) if number == step.number else None
    )
    return section_yaml({step.section: specs})


def _letterboxed(plan: Plan, step: Step) -> str:
    """Return the section with the whole image scaled into the size of the crop."""
    options = step.spec.options
    if not {"height", "width"} <= options.keys():
        return ""
    height, width = options["height"], options["width"]
    fit = {"LongestMaxSize": {"max_size_hw": [height, width]}}
    pad = {"PadIfNeeded": {"min_height": height, "min_width": width}}

    def fitted(spec: TransformSpec) -> Sequence[TransformSpec]:
        return tuple(_spec(spec, name, values) for each in (fit, pad) for name, values in each.items())

    return _changed(plan, step, fitted)


def _spec(like: TransformSpec, name: str, options: Mapping[str, Any]) -> TransformSpec:
    return like.model_copy(update={"name": name, "options": dict(options), "children": ()})
