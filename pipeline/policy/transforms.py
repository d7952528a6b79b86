"""Policies: lists of Albumentations transforms as values that can be compared, saved and checked.

A transform is written in YAML as ``Name: {option: value}`` or just ``Name``; compositions nest under
``transforms``. A policy may also be ``{file: policy.json}`` (saved by ``albumentations.save``) or
``{import: module:name}`` (a transform, a list of them or a ``Compose``); both are expanded when the plan is
built, so that a plan holds all it needs. In Python, pass the Albumentations objects themselves.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import PlanError, nearest
from ..quiet import ignored_warnings

if TYPE_CHECKING:
    import albumentations


def load_albumentations() -> Any:
    """Import Albumentations without its look for a newer version on the network."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations


class TransformSpec(BaseModel):
    """One transform as a value: its name, its options and, for compositions, its children."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """A class of Albumentations, or ``module:Class`` for your own."""
    options: dict[str, Any] = {}
    children: tuple[TransformSpec, ...] = ()

    def dump(self) -> dict[str, Any]:
        """Return the YAML form."""
        children = {"transforms": [child.dump() for child in self.children]} if self.children else {}
        return {self.name: {**children, **self.options}}

    def build(self, where: str) -> albumentations.BasicTransform:
        """Make the Albumentations object; ``where`` names the place in the plan for errors."""
        where = f"{where}.{self.name}"
        cls = find_transform(self.name, where)
        check_options(cls, self.options, where)
        options: dict[str, Any] = dict(self.options)
        if self.children:
            options["transforms"] = [
                child.build(f"{where}.transforms[{i}]") for i, child in enumerate(self.children)
            ]
        try:
            with ignored_warnings():  # options are checked above
                built = cls(**options)
        except (TypeError, ValueError) as error:
            raise PlanError(f"{where}{_reason(error)}; see help of albumentations.{self.name}") from error
        return built


def _reason(error: BaseException) -> str:
    """Say in one line what Albumentations found wrong; its own errors wrap pydantic's in another class."""
    inner = next(
        (e for e in (error, error.__context__, error.__cause__) if isinstance(e, ValidationError)), None
    )
    if inner is None:
        return f": {' '.join(str(error).split())}"
    first = inner.errors()[0]
    return f"{''.join(f'.{part}' for part in first['loc'])}: {first['msg']}, got {first['input']!r}"


def find_transform(name: str, where: str) -> type[Any]:
    """Find a transform or composition class by its name in Albumentations or by ``module:Class``."""
    if ":" in name:
        found = import_object(name, where)
        if isinstance(found, type):
            return found
        raise PlanError(
            f"{where}: wanted a transform class, got {type(found).__name__}; write 'import: {name}' for an object"
        )
    known = transform_classes()
    if name not in known:
        raise PlanError(
            f"{where}: wanted an Albumentations transform, got {name!r}; {nearest(name, known)}".rstrip("; ")
        )
    return known[name]


def transform_classes() -> dict[str, type[Any]]:
    """List the transforms and compositions of the installed Albumentations by name."""
    package = load_albumentations()
    bases = (package.BasicTransform, package.BaseCompose)
    listed = {name: getattr(package, name) for name in dir(package)}
    return {
        name: cls
        for name, cls in listed.items()
        if isinstance(cls, type) and issubclass(cls, bases) and not inspect.isabstract(cls)
    }


def import_object(reference: str, where: str) -> Any:
    """Import ``module:name``."""
    module, _, attribute = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise PlanError(
            f"{where}: wanted an importable 'module:name', got {reference!r} ({error}); "
            "check the spelling and that the module is installed or on PYTHONPATH"
        ) from error


def option_names(cls: type[Any]) -> list[str]:
    """List the options that a transform class takes."""
    return [
        name for name in inspect.signature(cls.__init__).parameters if name not in ("self", "kwargs", "args")
    ]


def check_options(cls: type[Any], options: Mapping[str, Any], where: str) -> None:
    """Check that the class takes every option, since Albumentations only warns.

    Raises:
        PlanError: an option is unknown; names the nearest right one.
    """
    parameters = [
        name for name in inspect.signature(cls.__init__).parameters if name not in ("self", "kwargs", "args")
    ]
    for option in options:
        if option not in parameters:
            hint = nearest(option, parameters) or f"it takes {', '.join(parameters)}"
            raise PlanError(f"{where}.{option}: no such option; {hint}")


def parse_policy(value: Any, where: str) -> tuple[TransformSpec, ...]:
    """Turn what a user wrote (YAML, Albumentations objects, a file or an import) into specs.

    Raises:
        PlanError: the policy cannot be right; the message names the place in it.
    """
    if value is None:
        return ()
    if isinstance(value, Mapping) and set(value) == {"file"}:
        return read_policy_file(Path(str(value["file"])), where)
    if isinstance(value, Mapping) and set(value) == {"import"}:
        return parse_policy(import_object(str(value["import"]), where), where)
    if hasattr(value, "to_dict"):
        spec = spec_of(value, where)
        return (
            spec.children
            if spec.name == "Compose" and set(spec.options) <= {"p"} and spec.options.get("p", 1.0) == 1.0
            else (spec,)
        )
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise PlanError(
            f"{where}: wanted a list of transforms, {{file: PATH}} or {{import: module:name}}, got {value!r}"
        )
    return tuple(parse_transform(item, f"{where}[{i}]") for i, item in enumerate(value))


def parse_transform(item: Any, where: str) -> TransformSpec:
    """Turn one written transform into a spec."""
    if isinstance(item, TransformSpec):
        return item
    if hasattr(item, "to_dict"):
        return spec_of(item, where)
    if isinstance(item, str):
        return TransformSpec(name=item)
    if not isinstance(item, Mapping) or len(item) != 1:
        raise PlanError(
            f"{where}: wanted 'Name' or 'Name: {{option: value}}', got {item!r}; indent the options below the name"
        )
    ((name, options),) = item.items()
    if not isinstance(options or {}, Mapping):
        raise PlanError(f"{where}.{name}: wanted options as 'option: value', got {options!r}")
    options = dict(options or {})
    children = options.pop("transforms", None)
    return TransformSpec(
        name=str(name), options=options, children=parse_policy(children, f"{where}.{name}.transforms")
    )


def spec_of(transform: Any, where: str) -> TransformSpec:
    """Describe an Albumentations object as a spec."""
    try:
        described = transform.to_dict()["transform"]
    except (NotImplementedError, ValueError, KeyError) as error:
        raise PlanError(
            f"{where}: {type(transform).__name__} cannot be written down ({error}); "
            "make it a class of your own and name it as 'module:Class'"
        ) from error
    return spec_of_dict(described)


def spec_of_dict(described: Mapping[str, Any]) -> TransformSpec:
    """Turn Albumentations' own serialised form into a spec."""
    options = {
        k: v for k, v in described.items() if k not in ("__class_fullname__", "transforms", "__version__")
    }
    name = str(described["__class_fullname__"])
    if "." in name:
        module, _, cls = name.rpartition(".")
        name = cls if cls in transform_classes() else f"{module}:{cls}"
    if name in transform_classes():  # some list what they derive from their options too, such as PadIfNeeded
        options = {k: v for k, v in options.items() if k in option_names(transform_classes()[name])}
    if name == "Compose":  # what Compose adds to itself is not part of a policy: targets come from the index
        options = {"p": options.get("p", 1.0)}
    if name == "Sequential":
        options = {"p": options.get("p", 0.5)}
    return TransformSpec(
        name=name, options=options, children=tuple(spec_of_dict(d) for d in described.get("transforms", ()))
    )


def read_policy_file(path: Path, where: str) -> tuple[TransformSpec, ...]:
    """Read a policy that ``albumentations.save`` wrote, as JSON or YAML."""
    import yaml

    try:
        described = yaml.safe_load(path.read_text())  # JSON is YAML
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PlanError(
            f"{where}: wanted a policy saved by albumentations.save, got {path} ({error})"
        ) from error
    if not isinstance(described, Mapping) or "transform" not in described:
        raise PlanError(
            f"{where}: wanted a policy saved by albumentations.save, got {path}; it has no 'transform' key"
        )
    spec = spec_of_dict(described["transform"])
    return spec.children if spec.name == "Compose" else (spec,)
