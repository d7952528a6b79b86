"""Which classes and objects the text of a plan or a job file may name, and what imports them.

Plans, policies and job files are data. They may name what Lightwell and Albumentations offer, what an installed package
lists under the entry points ``lightwell.transforms`` and ``lightwell.jobs``, and what lies in modules that the caller
allows. Nothing else is imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Self

from ..errors import PlanError
from ..text import quoted

TRANSFORMS = "lightwell.transforms"
JOBS = "lightwell.jobs"
CONTEXT_KEY = "allow_import"
"""Of a validation context of pydantic."""


@dataclass(frozen=True, slots=True)
class AllowedModules:
    """Modules that text may import from, each with its submodules; none unless the caller names some."""

    names: tuple[str, ...] = ()

    @classmethod
    def from_names(cls, names: Sequence[str]) -> Self:
        """Check the names of modules.

        Raises:
            PlanError: one is no name of a module.
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
        """Read the modules out of a validation context; none where there is no context."""
        return cls.from_names(context.get(CONTEXT_KEY, ())) if isinstance(context, Mapping) else cls()

    def context(self) -> dict[str, Any]:
        """Return the validation context that carries these modules."""
        return {CONTEXT_KEY: self.names}

    def check(self, reference: str, where: str, *, group: str) -> None:
        """Refuse ``module:name`` unless its module is allowed or an entry point lists it.

        Raises:
            PlanError: it may not be imported.
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
            f"{where}: expected a name that may be used without permission, got {quoted(reference)}, which would run code of "
            f"that module; {cure} if you trust its author, or list it under the entry point {group}"
        )


NO_MODULES = AllowedModules()


def entry_point_targets(group: str) -> Mapping[str, str]:
    """List the entry points of installed packages: from name to ``module:name``."""
    return {entry.name: entry.value.replace(" ", "") for entry in entry_points(group=group)}


def import_object(reference: str, where: str) -> Any:
    """Import ``module:name``; whether that is allowed is for the caller to check.

    Raises:
        PlanError: there is no such module or name, or the module fails; says the type of the failure, no values.
    """
    module_name, _, attribute = reference.partition(":")
    try:
        found = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        known = isinstance(error, ModuleNotFoundError) and error.name
        reason = f"no module {error.name!r}" if known else type(error).__name__  # type: ignore[attr-defined]
        raise PlanError(
            f"{where}: expected an importable 'module:name', got {quoted(reference)} ({reason}); "
            "check the spelling and that the module is installed or on PYTHONPATH"
        ) from error
    return found
