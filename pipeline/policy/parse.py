"""Policies as users write them: YAML, Albumentations objects, files that Albumentations saved, and imports.

A transform is written in YAML as ``Name: {option: value}`` or just ``Name``; compositions nest under ``transforms``. A
policy may also be ``{file: policy.json}`` (saved by ``albumentations.save``) or ``{import: module:name}`` (a transform, a
list of them or a ``Compose``); both are expanded when the plan is built, so that a plan holds all it needs. In Python,
pass the Albumentations objects themselves.
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
"""In one policy, nested ones included."""


@dataclass(frozen=True, slots=True)
class PolicyReader:
    """Turns what was written for a policy into specs; text may name only what is allowed."""

    allowed: AllowedModules = NO_MODULES

    @classmethod
    def from_context(cls, context: Any) -> Self:
        """Read what is allowed out of a validation context."""
        return cls(AllowedModules.from_context(context))

    def read(self, value: Any, where: str) -> tuple[TransformSpec, ...]:
        """Read a whole policy and check that all of it can be built.

        Raises:
            PlanError: the policy cannot be right; the message names the place in it.
        """
        from_file = isinstance(value, Mapping) and set(value) == {"file"}
        specs = _flat(self._file(value["file"], where)) if from_file else self._policy(value, where)
        if sum(map(_size, specs)) > MAX_TRANSFORMS:
            raise PlanError(
                f"{where}: expected at most {MAX_TRANSFORMS} transforms, got more; leave some out"
            )
        for i, spec in enumerate(specs):
            spec.build(f"{where}[{i}]")
        return specs

    def _policy(self, value: Any, where: str) -> tuple[TransformSpec, ...]:
        if value is None:
            return ()
        if isinstance(value, Mapping) and set(value) == {"import"}:
            return self._import(value["import"], where)
        if isinstance(value, TransformSpec):
            return (value,)
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return tuple(self._transform(item, f"{where}[{i}]") for i, item in enumerate(value))
        if not isinstance(value, str | bytes | int | float | Mapping) and is_transform(value):
            return _flat(spec_from_transform(value, where))
        raise PlanError(
            f"{where}: expected a list of transforms, {{file: PATH}} or {{import: module:name}}, got {quoted(value)}; "
            "a file stands for a whole policy"
        )

    def _transform(self, item: Any, where: str) -> TransformSpec:
        if isinstance(item, TransformSpec):
            return item
        if isinstance(item, str):
            item = {item: None}
        if not isinstance(item, Mapping):
            if is_transform(item):
                return spec_from_transform(item, where)
        elif len(item) == 1 and isinstance(name := next(iter(item)), str):
            return self._written(name, item[name], where)
        raise PlanError(
            f"{where}: expected 'Name' or 'Name: {{option: value}}', got {quoted(item)}; indent the options below the name"
        )

    def _written(self, name: str, options: Any, where: str) -> TransformSpec:
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
        children = self._policy(options.pop("transforms", None), f"{where}.transforms")
        try:
            return TransformSpec.model_validate(
                {"name": name, "options": options, "children": children}, context=self.allowed.context()
            )
        except PlanError as error:
            raise PlanError(f"{where}: {str(error).removeprefix('TransformSpec: ')}") from error

    def _file(self, written: Any, where: str) -> TransformSpec:
        if not isinstance(written, str | Path) or not str(written):
            raise PlanError(f"{where}: expected the path of a policy, got {quoted(written)}; correct 'file'")
        return read_policy_file(Path(written), where, self.allowed)

    def _import(self, written: Any, where: str) -> tuple[TransformSpec, ...]:
        if not isinstance(written, str) or not all(written.partition(":")):
            raise PlanError(
                f"{where}: expected 'module:name', got {quoted(written)}; name a transform, a list of them or a Compose"
            )
        self.allowed.check(written, where, group=TRANSFORMS)
        found = import_object(written, where)
        if isinstance(found, list | tuple) or (not isinstance(found, type) and is_transform(found)):
            return self._policy(found, where)
        raise PlanError(
            f"{where}: expected a transform, a list of them or a Compose at {written}, got a {type(found).__name__}; "
            "a class is named in a list of transforms"
        )


def _flat(spec: TransformSpec) -> tuple[TransformSpec, ...]:
    """Return the transforms of an outermost Compose that is always applied; another stays as it is."""
    only_p = spec.name == "Compose" and set(spec.options) <= {"p"}
    return spec.children if only_p and spec.options.get("p", 1.0) == 1 else (spec,)


def _size(spec: TransformSpec) -> int:
    return 1 + sum(map(_size, spec.children))
