"""The transforms that a plan may name: those of Albumentations, Lightwell's own, and those of packages that are allowed."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from ..config.imports import TRANSFORMS, AllowedModules, entry_point_targets, import_object
from ..errors import PlanError, did_you_mean
from ..text import quoted

OWN_TRANSFORMS = {"ToHSV": "lightwell.pipeline.policy.color:ToHSV"}
"""Transforms of this package: they need no permission, by either name."""

ABSTRACT_BASES = frozenset(
    {"BaseCompose", "BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D"}
)
"""Bases of Albumentations that do nothing themselves."""

_REFERENCES = "it takes its reference images from files or arrays, which are no options of a plan"
_OTHER_DATA = "it takes other images, texts or boxes out of the data, which a plan does not have"
_VOLUMES = "it works on volumes, and a plan has images"
UNSUPPORTED: Mapping[str, str] = {
    "CenterCrop3D": _VOLUMES,
    "CoarseDropout3D": _VOLUMES,
    "CubicSymmetry": _VOLUMES,
    "FDA": _REFERENCES,
    "HistogramMatching": _REFERENCES,
    "Lambda": "it calls functions, which cannot be written down; make it a class of your own",
    "Mosaic": _OTHER_DATA,
    "OverlayElements": _OTHER_DATA,
    "Pad3D": _VOLUMES,
    "PadIfNeeded3D": _VOLUMES,
    "PixelDistributionAdaptation": _REFERENCES,
    "RandomCrop3D": _VOLUMES,
    "RandomCropNearBBox": _OTHER_DATA,
    "ReplayCompose": "it adds a record of what was drawn, which a batch has no place for; write Compose",
    "TextImage": f"it reads a font file, and {_OTHER_DATA}",
}
"""Classes of Albumentations that no plan can hold, and why: they open files, call functions or need other data."""


def load_albumentations() -> Any:
    """Import Albumentations without its look for a newer version on the network."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations


@cache
def transform_classes() -> Mapping[str, type[Any]]:
    """List the transforms and compositions of the installed Albumentations by name, without its bare bases."""
    package = load_albumentations()
    listing = {name: getattr(package, name) for name in dir(package) if name not in ABSTRACT_BASES}
    return {
        name: cls for name, cls in listing.items() if is_transform_class(cls) and not inspect.isabstract(cls)
    }


def is_transform(value: Any) -> bool:
    """Return whether a value is a transform or a composition of Albumentations, or of a class derived from one."""
    package = load_albumentations()
    return isinstance(value, package.BasicTransform | package.BaseCompose)


def is_transform_class(value: Any) -> bool:
    """Return whether a value is a class of transforms or compositions."""
    package = load_albumentations()
    return isinstance(value, type) and issubclass(value, (package.BasicTransform, package.BaseCompose))


def is_composition_class(cls: type[Any]) -> bool:
    """Return whether a class of transforms holds other transforms."""
    return issubclass(cls, load_albumentations().BaseCompose)


def is_composition(transform: Any) -> bool:
    """Return whether a transform holds others; ColorJitter has a list of functions ``transforms`` and is none."""
    return is_composition_class(type(transform))


def check_permitted(name: str, where: str, allowed: AllowedModules) -> None:
    """Check, without importing anything, that text may name a transform.

    Args:
        name: a class of Albumentations, the name of an entry point, or ``module:Class``.
        where: its place in the plan, for errors.
        allowed: modules that may be imported from.

    Raises:
        PlanError: no such transform, one that no plan can hold, or one that needs permission.
    """
    if ":" in name:
        if name not in OWN_TRANSFORMS.values():
            allowed.check(name, where, group=TRANSFORMS)
        return
    known = transform_classes()
    if name in known:
        if name in UNSUPPORTED:
            raise PlanError(
                f"{where}: expected a transform that a plan can hold, got {name}: {UNSUPPORTED[name]}"
            )
        return
    if name not in OWN_TRANSFORMS and name not in (entries := entry_point_targets(TRANSFORMS)):
        hint = (
            did_you_mean(name, [*known, *OWN_TRANSFORMS, *entries])
            or "a class of your own is written as 'module:Class'"
        )
        raise PlanError(f"{where}: expected an Albumentations transform, got {quoted(name)}; {hint}")


def find_transform(name: str, where: str) -> type[Any]:
    """Find a class of transforms by a name that was permitted; what is found is checked before anybody calls it.

    Raises:
        PlanError: no such class, or it is no class of transforms.
    """
    known = transform_classes()
    if name in known:
        return known[name]
    reference = name if ":" in name else OWN_TRANSFORMS.get(name) or entry_point_targets(TRANSFORMS).get(name)
    if reference is None:
        raise PlanError(
            f"{where}: expected an Albumentations transform or an entry point of {TRANSFORMS}, got {quoted(name)}; "
            "install the package that lists it here too"
        )
    found = import_object(reference, where)
    if not is_transform_class(found):
        raise PlanError(
            f"{where}: expected a class derived from albumentations.BasicTransform or BaseCompose, got {quoted(found)}; "
            f"write 'import: {reference}' for a policy, or derive the class"
        )
    if inspect.isabstract(found) or found.__name__ in ABSTRACT_BASES:
        raise PlanError(f"{where}: expected a transform, got the abstract {found.__name__}; derive from it")
    cls: type[Any] = found
    return cls


def transform_name(cls: type[Any], where: str) -> str:
    """Return the name by which a plan holds a class of transforms: Albumentations' own, or ``module:Class``.

    Raises:
        PlanError: a class that nobody can import by name, or that no plan can hold.
    """
    known = transform_classes()
    if known.get(cls.__name__) is cls:
        if cls.__name__ in UNSUPPORTED:
            raise PlanError(
                f"{where}: expected a transform that a plan can hold, got {cls.__name__}: {UNSUPPORTED[cls.__name__]}"
            )
        return cls.__name__
    reference = f"{cls.__module__}:{cls.__qualname__}"
    if "<locals>" in reference or import_object(reference, where) is not cls:
        raise PlanError(
            f"{where}: expected a class that can be imported by its name, got {quoted(reference)}; "
            "define it at the top level of a module"
        )
    for name, target in {**OWN_TRANSFORMS, **entry_point_targets(TRANSFORMS)}.items():
        if target == reference and name not in known and name not in OWN_TRANSFORMS:
            return name
    return reference


def option_names(cls: type[Any]) -> list[str]:
    """List the options that a class of transforms takes by name."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return [parameter.name for parameter in parameters if parameter.kind in kinds]


def check_options(cls: type[Any], options: Mapping[str, Any], where: str) -> None:
    """Check that the class takes every option, since Albumentations only warns.

    Raises:
        PlanError: an option is unknown; names the nearest right one.
    """
    parameters = inspect.signature(cls.__init__).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return  # a class of one's own that takes any
    names = option_names(cls)
    for option in options:
        if option not in names:
            hint = did_you_mean(option, names) or f"it takes {', '.join(names)}"
            raise PlanError(f"{where}.{option}: no such option; {hint}")
