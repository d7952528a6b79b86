"""Validate options of Albumentations compositions, which their constructors do not check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from ..errors import PlanError
from ..text import quoted

CHOICE_COMPOSITIONS = frozenset({"OneOf", "SomeOf", "RandomOrder", "OneOrOther"})
"""Compositions that apply a random choice of their transforms."""

MAX_N = 1000
"""Maximum ``n`` of SomeOf and RandomOrder."""

BOX_FILTERS: Mapping[str, Any] = {
    "min_area": 0.0,
    "min_visibility": 0.0,
    "min_width": 0.0,
    "min_height": 0.0,
    "max_accept_ratio": None,
    "check_each_transform": True,
    "filter_invalid_bboxes": False,
}
"""``BboxParams`` options that filter boxes, with the values that keep all boxes; plans set them in ``bbox_params``."""


def check_composition(cls: type[Any], options: Mapping[str, Any], num_children: int, where: str) -> None:
    """Check the options of a composition.

    Raises:
        PlanError: an option has the wrong type or is out of range, there are no transforms to choose from, or an option of
            Compose is not supported in a plan.
    """
    if not cls.__module__.startswith("albumentations."):
        return
    for name in ("first", "second"):
        if name in options:
            _fail(f"{where}.{name}", "a list below 'transforms'", options[name], "list both there")
    if num_children == 0 and cls.__name__ in CHOICE_COMPOSITIONS:
        raise PlanError(
            f"{where}.transforms: expected at least one transform to choose from, got none; add some"
        )
    if num_children != 2 and cls.__name__ == "OneOrOther":
        raise PlanError(
            f"{where}.transforms: expected two transforms, got {num_children}; use OneOf for any other number"
        )
    p = options.get("p", 1.0)
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        _fail(f"{where}.p", "a probability from 0 to 1", p, "correct it")
    n = options.get("n", 1)
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MAX_N:
        _fail(f"{where}.n", f"a whole number from 1 to {MAX_N}", n, "correct it")
    if not isinstance(options.get("replace", False), bool):
        _fail(f"{where}.replace", "true or false", options["replace"], "correct it")
    channels = options.get("channels", [0])
    if (
        not isinstance(channels, list | tuple)
        or not channels
        or not all(type(channel) is int and 0 <= channel < 3 for channel in channels)
        or len(set(channels)) < len(channels)
    ):
        _fail(f"{where}.channels", "different numbers out of 0, 1 and 2", channels, "correct it")
    check_compose(options, where)


def check_compose(options: Mapping[str, Any], where: str) -> None:
    """Check that the options of a Compose are supported in a plan.

    Raises:
        PlanError: an option is not supported, or belongs in another section of the plan.
    """
    if options.get("seed") is not None:
        _fail(
            f"{where}.seed",
            "none, since the plan has a seed",
            options["seed"],
            "move it to the plan's key 'seed'",
        )
    if targets := options.get("additional_targets"):
        names = ", ".join(map(str, targets)) if isinstance(targets, Mapping) else targets
        _fail(
            f"{where}.additional_targets", "none, since the index defines the targets", names, "leave it out"
        )
    if options.get("save_applied_params"):
        _fail(f"{where}.save_applied_params", "false, since batches do not hold them", True, "leave it out")
    interpolation = options.get("mask_interpolation")
    if interpolation is not None and (
        isinstance(interpolation, bool) or interpolation not in (0, 1, 2, 3, 4, 5, 6)
    ):
        _fail(f"{where}.mask_interpolation", "one of OpenCV's flags, 0 to 6", interpolation, "correct it")
    for name in ("strict", "is_check_shapes"):
        if not isinstance(options.get(name, True), bool):
            _fail(f"{where}.{name}", "true or false", options[name], "correct it")
    _check_boxes(options.get("bbox_params"), f"{where}.bbox_params")
    _check_keypoints(options.get("keypoint_params"), f"{where}.keypoint_params")


def _check_boxes(params: Any, where: str) -> None:
    if params is None:
        return
    if not isinstance(params, Mapping):
        _fail(where, "'option: value' lines below it", params, "correct it")
    for name, default in BOX_FILTERS.items():
        if params.get(name, default) != default:
            _fail(
                f"{where}.{name}",
                f"{default} in a policy",
                params[name],
                "set it in the plan's key 'bbox_params' and leave it out here",
            )


def _check_keypoints(params: Any, where: str) -> None:
    if params is not None and not isinstance(params, Mapping):
        _fail(where, "'option: value' lines below it", params, "correct it")
    if params is not None and params.get("remove_invisible", True):
        _fail(
            f"{where}.remove_invisible",
            "false in a policy",
            True,
            "set it in the plan's key 'keypoint_params' and use false here",
        )


def _fail(where: str, expected: str, got: Any, cure: str) -> NoReturn:
    raise PlanError(f"{where}: expected {expected}, got {quoted(got)}; {cure}")
