"""Import objects that plans and job files name, from allowed modules and entry points only.

Plans, policies and job files are data. They may name classes of Lightwell and Albumentations, the entry points
``lightwell.transforms`` and ``lightwell.jobs`` of installed packages, and objects in modules that the caller allows.
Nothing else is imported.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Self

from ..errors import PlanError
from ..text import quoted

TRANSFORMS = "lightwell.transforms"
JOBS = "lightwell.jobs"
CONTEXT_KEY = "allow_import"
"""Key in the validation context of pydantic."""


@dataclass(frozen=True, slots=True)
class AllowedModules:
    """Modules, including submodules, that configuration may import from (default: none)."""

    names: tuple[str, ...] = ()

    @classmethod
    def from_names(cls, names: Sequence[str]) -> Self:
        """Build from module names.

        Raises:
            PlanError: a name is not a valid module name.
        """
        if isinstance(names, str):
            names = (names,)
        for name in names:
            if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
                raise PlanError(
                    f"allow_import: expected the name of a module, such as 'mypackage.transforms', got {quoted(name)}; "
                    "leave out paths, '.py' and ':Name'"
                )
        return cls(tuple(names))

    @classmethod
    def from_context(cls, context: Any) -> Self:
        """Read the modules from a validation context; none if there is no context."""
        return cls.from_names(context.get(CONTEXT_KEY, ())) if isinstance(context, Mapping) else cls()

    def context(self) -> dict[str, Any]:
        """Return a validation context with these modules."""
        return {CONTEXT_KEY: self.names}

    def check(self, reference: str, where: str, *, group: str) -> None:
        """Check that ``module:name`` is in an allowed module or is the target of an entry point.

        Raises:
            PlanError: it is neither.
        """
        module = reference.partition(":")[0]
        if any(module == name or module.startswith(f"{name}.") for name in self.names):
            return
        if reference in entry_point_targets(group).values():
            return
        cure = f"allow it with --allow-import {module} (allow_import=({module!r},) in Python)"
        if not module or not all(part.isidentifier() for part in module.split(".")):
            cure = "write the name of an importable module"
        raise PlanError(
            f"{where}: expected an allowed name, got {quoted(reference)}, whose import runs code of that module; {cure} if you "
            f"trust its author, or register it under the entry point {group}"
        )


NO_MODULES = AllowedModules()


def entry_point_targets(group: str) -> Mapping[str, str]:
    """Return the entry points of a group, from name to ``module:name``; those of packages on the present search path."""
    return _targets(group, tuple(sys.path))


@cache
def _targets(group: str, _: tuple[str, ...]) -> Mapping[str, str]:
    return MappingProxyType({entry.name: entry.value.replace(" ", "") for entry in entry_points(group=group)})


def import_object(reference: str, where: str) -> Any:
    """Import ``module:name``, without checking whether that is allowed.

    Raises:
        PlanError: there is no such module or name, or the import fails; the message holds the type of the error only.
    """
    try:
        if not reference.partition(":")[2]:
            raise ValueError(reference)
        return pkgutil.resolve_name(reference)
    except Exception as error:
        known = isinstance(error, ModuleNotFoundError) and error.name
        reason = f"no module {error.name!r}" if known else type(error).__name__  # type: ignore[attr-defined]
        raise PlanError(
            f"{where}: expected an importable 'module:name', got {quoted(reference)} ({reason}); "
            "check the spelling and that the module is installed or on PYTHONPATH"
        ) from error
