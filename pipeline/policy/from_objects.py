"""Convert Albumentations objects to specs, verified by rebuilding each object and comparing its attributes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np

from ..config.imports import AllowedModules
from ..errors import LightwellError, PlanError
from ..text import one_line, quoted
from .compose_options import check_compose
from .registry import is_composition, option_names, transform_name
from .spec import TransformSpec

IGNORED_ATTRIBUTES = frozenset(
    {
        "_available_keys",
        "_images_was_list",
        "_init_args",
        "_key2func",
        "_masks_was_list",
        "_strict",
        "applied_in_replay",
        "check_each_transform",
        "invalid_args",
        "is_check_args",
        "is_check_shapes",
        "main_compose",
        "params",
        "processors",
        "py_random",
        "random_generator",
        "save_applied_params",
        "seed",
        "transforms",
    }
)
"""Attributes that do not affect images or annotations: random state, and values set by an outer composition."""
MAX_DEPTH = 32
COMPOSE_OPTIONS = ("seed", "save_applied_params", "additional_targets")


def spec_from_transform(transform: Any, where: str) -> TransformSpec:
    """Convert a transform or a composition to a spec.

    Raises:
        PlanError: it is not supported in a plan, or the object rebuilt from the spec differs; names the attributes.
    """
    spec = _describe(transform, where)
    lost = differing_attributes(transform, spec.build(where))
    if lost:
        raise PlanError(
            f"{where}: expected a transform that is fully described by its options, got {type(transform).__name__}, which loses "
            f"{', '.join(lost[:5])}; set these as options, or define a class of your own"
        )
    return spec


def _describe(transform: Any, where: str) -> TransformSpec:
    cls = type(transform)
    where = f"{where}.{cls.__name__}"
    name = transform_name(cls, where)
    _check_state(transform, where)
    if is_composition(transform):
        options = _composition_options(transform, where)
        children = [
            _describe(child, f"{where}.transforms[{i}]") for i, child in enumerate(transform.transforms)
        ]
    else:
        options, children = _leaf_options(transform, where), []
    module = name.partition(":")[0]
    try:
        return TransformSpec.model_validate(
            {"name": name, "options": options, "children": children},
            context=AllowedModules((module,)).context(),  # the class is already imported
        )
    except PlanError as error:
        raise PlanError(f"{where}: {error}") from error


def _check_state(transform: Any, where: str) -> None:
    invalid = getattr(transform, "invalid_args", None)
    if invalid:
        raise PlanError(
            f"{where}: expected options that the class takes, got {', '.join(map(quoted, invalid))}, which it ignored; "
            "correct or remove them"
        )
    if getattr(transform, "deterministic", False) or getattr(transform, "replay_mode", False):
        raise PlanError(f"{where}: expected a random transform, got one in replay mode; create a new one")


def _leaf_options(transform: Any, where: str) -> dict[str, Any]:
    try:
        described = transform.to_dict_private()
    except LightwellError:
        raise
    except Exception as error:
        raise PlanError(
            f"{where}: expected a serializable transform, got one that is not "
            f"({one_line(' '.join(str(error).split()))}); define a class of your own and name it as 'module:Class'"
        ) from error
    names = set(option_names(type(transform)))
    return {name: value for name, value in described.items() if name in names}


def _composition_options(composition: Any, where: str) -> dict[str, Any]:
    """Return the options of a composition; those of Compose are checked, and only ``p`` is returned.

    ``mask_interpolation`` has already been set on each transform.
    """
    if transform_name(type(composition), where) != "Compose":
        names = set(option_names(type(composition))) - {"transforms", "first", "second"}
        return {name: getattr(composition, name) for name in sorted(names) if hasattr(composition, name)}
    found = {name: getattr(composition, name, None) for name in COMPOSE_OPTIONS}
    for name, processor in (("bbox_params", "bboxes"), ("keypoint_params", "keypoints")):
        if processor in composition.processors:
            found[name] = vars(composition.processors[processor].params)
    check_compose(found, where)
    return {"p": composition.p}


def differing_attributes(one: Any, other: Any, place: str = "") -> list[str]:
    """List the attributes in which two transforms differ, with dotted names for those of children."""
    if type(one) is not type(other):
        return [place or type(one).__name__]
    ignored = IGNORED_ATTRIBUTES | ({"mask_interpolation"} if is_composition(one) else frozenset())
    mine, theirs = _attributes(one, ignored), _attributes(other, ignored)
    lost = [
        f"{place}{name}"
        for name in sorted(mine.keys() | theirs.keys())
        if name not in mine or name not in theirs or not same_value(mine[name], theirs[name])
    ]
    if not is_composition(one):
        return lost
    if len(one.transforms) != len(other.transforms):
        return [*lost, f"{place}transforms"]
    pairs = zip(one.transforms, other.transforms, strict=True)
    return lost + [
        name
        for i, (child, again) in enumerate(pairs)
        for name in differing_attributes(child, again, f"{place}transforms[{i}].{type(child).__name__}.")
    ]


def _attributes(value: Any, ignored: frozenset[str]) -> dict[str, Any]:
    return {name: attribute for name, attribute in vars(value).items() if name not in ignored}


def same_value(one: Any, other: Any, depth: int = 0) -> bool:
    """Compare two values by content; a list equals a tuple of the same items, since files have only lists."""

    def equal_items(pairs: Iterable[tuple[Any, Any]]) -> bool:
        return all(same_value(a, b, depth + 1) for a, b in pairs)

    sequences = isinstance(one, list | tuple) and isinstance(other, list | tuple)
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    if depth > MAX_DEPTH:  # a circular reference
        found = True
    elif sequences:
        found = len(one) == len(other) and equal_items(zip(one, other, strict=True))
    elif numbers:
        found = isinstance(one, bool) == isinstance(other, bool) and bool(
            np.isclose(one, other, 0, 0, equal_nan=True)
        )
    elif type(one) is not type(other):
        found = False
    elif isinstance(one, np.ndarray):
        found = one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")
    elif isinstance(one, Mapping):
        found = one.keys() == other.keys() and equal_items((one[key], other[key]) for key in one)
    elif isinstance(one, MethodType):
        found = one.__func__ is other.__func__
    elif isinstance(one, random.Random | np.random.Generator):
        found = True
    elif isinstance(one, FunctionType | BuiltinFunctionType | type) or _compares_by_value(one):
        found = bool(one == other)
    else:  # other objects are compared by their attributes
        found = same_value(getattr(one, "__dict__", {}), getattr(other, "__dict__", {}), depth=depth + 1)
    return found


def _compares_by_value(value: Any) -> bool:
    return any("__eq__" in vars(cls) for cls in type(value).__mro__ if cls is not object)
