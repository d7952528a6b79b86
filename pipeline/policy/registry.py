"""Registry of transforms: Albumentations, Lightwell's own, entry points and allowed modules."""

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
"""Transforms of this package, allowed under either name."""

ABSTRACT_BASES = frozenset(
    {"BaseCompose", "BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D"}
)
"""Base classes of Albumentations."""

_REFERENCES = "it needs reference images from files or arrays, which a plan cannot hold; define a class of your own that loads them"
_OTHER_DATA = "it needs other images, texts or boxes as input, which a plan does not provide; leave it out"
_VOLUMES = "it works on volumes, not images; use its counterpart for images"
UNSUPPORTED: Mapping[str, str] = {
    "CenterCrop3D": _VOLUMES,
    "CoarseDropout3D": _VOLUMES,
    "CubicSymmetry": _VOLUMES,
    "FDA": _REFERENCES,
    "HistogramMatching": _REFERENCES,
    "Lambda": "it calls functions, which cannot be serialized; define a class of your own",
    "Mosaic": _OTHER_DATA,
    "OverlayElements": _OTHER_DATA,
    "Pad3D": _VOLUMES,
    "PadIfNeeded3D": _VOLUMES,
    "PixelDistributionAdaptation": _REFERENCES,
    "RandomCrop3D": _VOLUMES,
    "RandomCropNearBBox": _OTHER_DATA,
    "ReplayCompose": "it adds the sampled parameters to its output, which batches do not hold; use Compose",
    "TextImage": f"it reads a font file, and {_OTHER_DATA}",
}
"""Albumentations classes that a plan does not support, with the reason."""


def load_albumentations() -> Any:
    """Import Albumentations without its online version check."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations


@cache
def transform_classes() -> Mapping[str, type[Any]]:
    """Return the transforms and compositions of the installed Albumentations by name, without base classes."""
    package = load_albumentations()
    listing = {name: getattr(package, name) for name in dir(package) if name not in ABSTRACT_BASES}
    return {
        name: cls for name, cls in listing.items() if is_transform_class(cls) and not inspect.isabstract(cls)
    }


def is_transform(value: Any) -> bool:
    """Return whether a value is an Albumentations transform or composition, including subclasses."""
    package = load_albumentations()
    return isinstance(value, package.BasicTransform | package.BaseCompose)


def is_transform_class(value: Any) -> bool:
    """Return whether a value is a transform or composition class."""
    package = load_albumentations()
    return isinstance(value, type) and issubclass(value, (package.BasicTransform, package.BaseCompose))


def is_composition_class(cls: type[Any]) -> bool:
    """Return whether a transform class is a composition."""
    return issubclass(cls, load_albumentations().BaseCompose)


def is_composition(transform: Any) -> bool:
    """Return whether a transform is a composition; ColorJitter has an attribute ``transforms`` but is not one."""
    return is_composition_class(type(transform))


def check_permitted(name: str, where: str, allowed: AllowedModules) -> None:
    """Check, without importing anything, that a transform name is allowed.

    Args:
        name: an Albumentations class, the name of an entry point, or ``module:Class``.
        where: location in the plan, for error messages.
        allowed: modules that may be imported from.

    Raises:
        PlanError: the transform does not exist, is not supported in a plan, or is not allowed.
    """
    if ":" in name:
        if name not in OWN_TRANSFORMS.values():
            allowed.check(name, where, group=TRANSFORMS)
        return
    known = transform_classes()
    if name in known:
        if name in UNSUPPORTED:
            raise PlanError(
                f"{where}: expected a transform that plans support, got {name}: {UNSUPPORTED[name]}"
            )
        return
    if name not in OWN_TRANSFORMS and name not in (entries := entry_point_targets(TRANSFORMS)):
        hint = (
            did_you_mean(name, [*known, *OWN_TRANSFORMS, *entries])
            or "write a class of your own as 'module:Class'"
        )
        raise PlanError(f"{where}: expected an Albumentations transform, got {quoted(name)}; {hint}")


def find_transform(name: str, where: str) -> type[Any]:
    """Import a transform class by an allowed name.

    Raises:
        PlanError: there is no such class, or it is not a transform class.
    """
    known = transform_classes()
    if name in known:
        return known[name]
    reference = name if ":" in name else OWN_TRANSFORMS.get(name) or entry_point_targets(TRANSFORMS).get(name)
    if reference is None:
        raise PlanError(
            f"{where}: expected an Albumentations transform or an entry point of {TRANSFORMS}, got {quoted(name)}; "
            "install the package that registers it on this machine too"
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
    """Return the name of a transform class in a plan: its Albumentations name, entry point or ``module:Class``.

    Raises:
        PlanError: the class cannot be imported by name, or is not supported in a plan.
    """
    known = transform_classes()
    if known.get(cls.__name__) is cls:
        if cls.__name__ in UNSUPPORTED:
            raise PlanError(
                f"{where}: expected a transform that plans support, got {cls.__name__}: {UNSUPPORTED[cls.__name__]}"
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
    """Return the names of the options of a transform class."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return [parameter.name for parameter in parameters if parameter.kind in kinds]


def check_options(cls: type[Any], options: Mapping[str, Any], where: str) -> None:
    """Check that a class accepts every option; Albumentations only warns.

    Raises:
        PlanError: an option is unknown; suggests a similar one.
    """
    parameters = inspect.signature(cls.__init__).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return  # a custom class that takes any option
    names = option_names(cls)
    for option in options:
        if option not in names:
            hint = did_you_mean(option, names) or f"it takes {', '.join(names)}"
            raise PlanError(f"{where}.{option}: no such option; {hint}")
