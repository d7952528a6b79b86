"""Parse policies from YAML, Albumentations objects, saved policies and imports.

In YAML, a transform is written as ``Name: {option: value}`` or just ``Name``; compositions nest under ``transforms``. A
policy may also be ``{file: policy.json}`` (saved by ``albumentations.save``) or ``{import: module:name}`` (a transform, a
list of them or a ``Compose``); both are expanded when the plan is built, so that a plan is self-contained. In Python,
pass Albumentations objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..config.imports import NO_MODULES, TRANSFORMS, AllowedModules, import_object
from ..errors import PlanError
from ..text import quoted
from .from_objects import spec_from_transform
from .registry import check_permitted, is_transform
from .saved_policies import read_policy_file
from .spec import TransformSpec

MAX_TRANSFORMS = 1000
"""Limit for one policy, including nested transforms."""


@dataclass(frozen=True, slots=True)
class PolicyReader:
    """Parser of policies into specs; text may only name allowed classes."""

    allowed: AllowedModules = NO_MODULES

    @classmethod
    def from_context(cls, context: Any) -> Self:
        """Build from the allowed modules in a validation context."""
        return cls(AllowedModules.from_context(context))

    def read(self, value: Any, where: str) -> tuple[TransformSpec, ...]:
        """Parse a policy and check that each of its transforms can be built.

        Raises:
            PlanError: the policy is invalid; names the location in it.
        """
        from_file = isinstance(value, Mapping) and set(value) == {"file"}
        specs = (
            _unwrap_compose(self._read_file(value["file"], where))
            if from_file
            else self._parse_policy(value, where)
        )
        if sum(map(_num_transforms, specs)) > MAX_TRANSFORMS:
            raise PlanError(
                f"{where}: expected at most {MAX_TRANSFORMS} transforms, got more; leave some out"
            )
        for i, spec in enumerate(specs):
            spec.build(f"{where}[{i}]")
        return specs

    def _parse_policy(self, value: Any, where: str) -> tuple[TransformSpec, ...]:
        if value is None:
            return ()
        if isinstance(value, Mapping) and set(value) == {"import"}:
            return self._import(value["import"], where)
        if isinstance(value, TransformSpec):
            return (value,)
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return tuple(self._parse_transform(item, f"{where}[{i}]") for i, item in enumerate(value))
        if not isinstance(value, str | bytes | int | float | Mapping) and is_transform(value):
            return _unwrap_compose(spec_from_transform(value, where))
        raise PlanError(
            f"{where}: expected a list of transforms, {{file: PATH}} or {{import: module:name}}, got {quoted(value)}; "
            "a file replaces the whole policy"
        )

    def _parse_transform(self, item: Any, where: str) -> TransformSpec:
        if isinstance(item, TransformSpec):
            return item
        if isinstance(item, str):
            item = {item: None}
        if not isinstance(item, Mapping):
            if is_transform(item):
                return spec_from_transform(item, where)
        elif len(item) == 1 and isinstance(name := next(iter(item)), str):
            return self._parse_entry(name, item[name], where)
        raise PlanError(
            f"{where}: expected 'Name' or 'Name: {{option: value}}', got {quoted(item)}; indent the options below the name"
        )

    def _parse_entry(self, name: str, options: Any, where: str) -> TransformSpec:
        check_permitted(name, where, self.allowed)
        where = f"{where}.{name}"
        if not isinstance({} if options is None else options, Mapping):
            raise PlanError(
                f"{where}: expected options as 'option: value', got {quoted(options)}; correct it"
            )
        options = dict(options or {})
        for option in options:
            if not isinstance(option, str):
                raise PlanError(f"{where}: expected names of options, got {quoted(option)}; correct it")
        children = self._parse_policy(options.pop("transforms", None), f"{where}.transforms")
        try:
            return TransformSpec.model_validate(
                {"name": name, "options": options, "children": children}, context=self.allowed.context()
            )
        except PlanError as error:
            raise PlanError(f"{where}: {str(error).removeprefix('TransformSpec: ')}") from error

    def _read_file(self, reference: Any, where: str) -> TransformSpec:
        if not isinstance(reference, str | Path) or not str(reference):
            raise PlanError(
                f"{where}: expected the path of a policy, got {quoted(reference)}; correct 'file'"
            )
        return read_policy_file(Path(reference), where, self.allowed)

    def _import(self, reference: Any, where: str) -> tuple[TransformSpec, ...]:
        if not isinstance(reference, str) or not all(reference.partition(":")):
            raise PlanError(
                f"{where}: expected 'module:name', got {quoted(reference)}; name a transform, a list of them or a Compose"
            )
        self.allowed.check(reference, where, group=TRANSFORMS)
        found = import_object(reference, where)
        if isinstance(found, list | tuple) or (not isinstance(found, type) and is_transform(found)):
            return self._parse_policy(found, where)
        raise PlanError(
            f"{where}: expected a transform, a list of them or a Compose at {reference}, got a {type(found).__name__}; "
            "a class belongs in a list of transforms"
        )


def _unwrap_compose(spec: TransformSpec) -> tuple[TransformSpec, ...]:
    """Return the transforms of an outermost Compose with ``p`` 1, or else the spec itself."""
    only_p = spec.name == "Compose" and set(spec.options) <= {"p"}
    return spec.children if only_p and spec.options.get("p", 1.0) == 1 else (spec,)


def _num_transforms(spec: TransformSpec) -> int:
    return 1 + sum(map(_num_transforms, spec.children))
