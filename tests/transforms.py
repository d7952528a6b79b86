"""Random transforms of every class of the installed Albumentations, with random valid options."""

from __future__ import annotations

import inspect
import types
import typing
import warnings
from typing import Any, Literal, Union, get_args, get_origin

from hypothesis import strategies as st
from lightwell.pipeline.policy.registry import (
    UNSUPPORTED,
    is_composition_class,
    load_albumentations,
    option_names,
    transform_classes,
)

A = load_albumentations()
NEEDED: dict[str, dict[str, Any]] = {
    "AtLeastOneBBoxRandomCrop": {"height": 32, "width": 40},
    "CenterCrop": {"height": 32, "width": 40},
    "CropAndPad": {"px": 3},
    "CropNonEmptyMaskIfExists": {"height": 32, "width": 40},
    "GridElasticDeform": {"num_grid_xy": (3, 3), "magnitude": 3},
    "LongestMaxSize": {"max_size": 48},
    "RandomCrop": {"height": 32, "width": 40},
    "RandomResizedCrop": {"size": (32, 40)},
    "RandomSizedBBoxSafeCrop": {"height": 32, "width": 40},
    "RandomSizedCrop": {"min_max_height": (20, 32), "size": (32, 40)},
    "Resize": {"height": 32, "width": 40},
    "SmallestMaxSize": {"max_size": 48},
}
"""Options without which a class cannot be made."""
USABLE = sorted(
    name
    for name, cls in transform_classes().items()
    if name not in UNSUPPORTED and not is_composition_class(cls)
)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type, or some that are near it: what a class does not take is left out by ``transforms_of``."""
    if hint is Any or hint is inspect.Parameter.empty:
        return st.nothing()
    origin, inner = get_origin(hint), get_args(hint)
    if origin is typing.Annotated:
        return values_of(inner[0])
    if origin in (Union, types.UnionType):
        return st.one_of(*(values_of(one) for one in inner))
    if origin is Literal:
        return st.sampled_from(inner)
    if origin in (tuple, list):
        if origin is list or (len(inner) == 2 and inner[1] is Ellipsis):
            return st.lists(values_of(inner[0]), min_size=3, max_size=3).map(origin)
        return st.tuples(*map(values_of, inner)).map(_ascending)
    if origin is dict:
        return st.nothing()
    simple: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.one_of(st.integers(0, 12), st.sampled_from([1, 3, 7, 64, 255])),
        float: st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.1, 0.25, 1.0, 1.5, 30.0, -0.2])),
        type(None): st.none(),
    }
    return simple.get(hint, st.nothing())


def _ascending(found: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(sorted(found)) if all(isinstance(one, int | float) for one in found) else found


def transforms_of(name: str) -> st.SearchStrategy[Any]:
    """Objects of one class, a few of its options drawn at random; options that it refuses are left out one by one."""
    cls = transform_classes()[name]
    hints = {
        parameter: _hint(cls, parameter) for parameter in option_names(cls) if parameter not in ("p", "mask")
    }
    options = st.fixed_dictionaries(
        {}, optional={key: values_of(hint) for key, hint in hints.items() if not values_of(hint).is_empty}
    )
    return st.builds(lambda drawn, p: _made(cls, drawn, p), options, st.sampled_from([0.3, 0.7, 1.0]))


def made(name: str) -> Any:
    """Make a transform with its defaults, always applied."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some classes warn of themselves
        return transform_classes()[name](**NEEDED.get(name, {}), p=1)


def _hint(cls: type[Any], parameter: str) -> Any:
    schema = getattr(cls, "InitSchema", None)
    field = None if schema is None else schema.model_fields.get(parameter)
    return Any if field is None else field.annotation


def _made(cls: type[Any], options: dict[str, Any], p: float) -> Any:
    taken = dict(NEEDED.get(cls.__name__, {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = cls(**taken, p=p)
        for name, value in options.items():
            try:
                made = cls(**{**taken, name: value}, p=p, strict=True)
            except Exception:
                continue
            taken[name] = value
    return made
