"""Finds job classes by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config.imports import JOBS, AllowedModules, entry_point_targets, import_object
from ..errors import PlanError, did_you_mean
from ..text import quoted
from .contracts import TrainingJob
from .stages import BatchJob

CONTRACTS: Mapping[Any, Sequence[tuple[str, ...]]] = {
    TrainingJob: (("run",),),
    BatchJob: (("open", "finish"), ("stages", "finish")),
}
"""Members that identify each kind of job."""


def find_job(name: str, *, allow_import: Sequence[str] = (), contract: type[Any] | None = None) -> type[Any]:
    """Return a job class by its entry-point name in ``lightwell.jobs`` or by ``module:Name``.

    Args:
        name: name of the job, as in a job file.
        allow_import: modules that ``module:Name`` may be imported from, each with its submodules.
        contract: required kind of job, ``TrainingJob`` or ``BatchJob``; None allows both.

    Raises:
        PlanError: no such job, no permission to import it, or it is another kind of job.
    """
    if ":" in name:
        AllowedModules.from_names(allow_import).check(name, "job", group=JOBS)
        reference = name
    else:
        entries = entry_point_targets(JOBS)
        if name not in entries:
            raise PlanError(
                f"job: expected one of {sorted(entries)} or 'module:Name', got {quoted(name)}; {did_you_mean(name, entries)}"
            )
        reference = entries[name]
    cls = import_object(reference, "job")
    kinds = [
        kind for kind, choices in CONTRACTS.items() if any(_has_members(cls, members) for members in choices)
    ]
    allowed = [contract] if contract in CONTRACTS else list(CONTRACTS)
    if not any(kind in kinds for kind in allowed):
        choices = [members for kind in allowed for members in CONTRACTS[kind]]
        members = " or ".join(" and ".join(each) for each in choices)
        raise PlanError(
            f"job: expected a class with the methods {members}, got {quoted(name)}, {_kind_of(cls, kinds)}; see "
            "`lightwell.pipeline.jobs.stages`"
        )
    job: type[Any] = cls
    return job


def _has_members(found: Any, members: Sequence[str]) -> bool:
    if not isinstance(found, type):
        return False
    annotated = {name for cls in found.__mro__ for name in vars(cls).get("__annotations__", ())}
    return all(hasattr(found, member) or member in annotated for member in members)


def _kind_of(found: Any, kinds: Sequence[Any]) -> str:
    if not isinstance(found, type):
        return f"a {type(found).__name__}"
    if not kinds:
        return "a class without them"
    command = "train" if kinds == [TrainingJob] else "audit"
    return f"which `lightwell {command}` runs"
