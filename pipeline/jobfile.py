"""Job files: ``job: NAME``, ``plan:`` (inline or a path) and the job's own keys, as YAML.

``feed: service://NAME`` takes the batches from a service on a cluster, which knows the job as ``service://NAME/CONSUMER``
where that is written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel

from .errors import PlanError
from .jobs import find_job
from .path_fields import resolve_paths
from .plan import Plan, build_checked, read_yaml
from .view import View

SERVICE = "service://"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ServiceName:
    """Where a job's batches come from.

    Raises:
        PlanError: a name that cannot be one.
    """

    name: str
    consumer: str = ""
    """The job's own name there; empty takes one that nobody else has."""

    def __post_init__(self) -> None:
        for name in (self.name, *filter(None, (self.consumer,))):
            if not NAME.fullmatch(name):
                raise PlanError(
                    f"service: wanted a name of letters, digits, '.', '_' and '-', got {name!r}; choose another"
                )

    @classmethod
    def parse(cls, written: Any) -> Self:
        """Read ``service://NAME`` or ``service://NAME/CONSUMER``."""
        if not isinstance(written, str) or not written.startswith(SERVICE):
            raise PlanError(
                f"feed: wanted {SERVICE}NAME, got {written!r}; `lightwell services ls` lists the services, and without "
                "the key the job makes its own batches"
            )
        name, _, consumer = written.removeprefix(SERVICE).partition("/")
        return cls(name, consumer)


def load_service(path: Path) -> ServiceName | None:
    """Read from a job file which service feeds the job; None where it makes its own batches.

    Raises:
        PlanError: the file or the key is wrong.
    """
    content = read_yaml(path)
    return ServiceName.parse(content["feed"]) if "feed" in content else None


def load_job(path: Path, *, default: str) -> Any:
    """Build the job that a file describes; relative paths count from the file's folder.

    Args:
        path: the YAML file.
        default: the job's name where the file has no ``job`` key.

    Raises:
        PlanError: the file, the plan in it or one of its keys is wrong.
    """
    content = read_yaml(path)
    job = find_job(str(content.pop("job", default)))
    content.pop("feed", None)  # says where it runs, not what it is
    if "plan" not in content:
        raise PlanError(f"{path}: plan: missing; add the path of a plan, or write it inline")
    plan = _read_plan(content.pop("plan"), path)
    if issubclass(job, BaseModel):
        return build_checked(job, {**content, "plan": plan}, where=str(path), folder=path.parent)
    try:
        return job(plan=plan, **resolve_paths(job, content, path.parent))
    except TypeError as error:
        raise PlanError(f"{path}: {job.__name__}: {error}; check the keys of the job file") from error


def load_plan(path: Path) -> Plan:
    """Read a plan from its own file or out of a job file.

    Raises:
        PlanError: the file or the plan in it is wrong.
    """
    content = read_yaml(path)
    return _read_plan(content["plan"], path) if "plan" in content else Plan.load(path)


@dataclass(frozen=True)
class Reading:
    """A plan with what a job reads of it."""

    plan: Plan
    view: View | None
    """None where the file is a plan and no job."""


def load_reading(path: Path) -> Reading:
    """Read a plan from its own file, or a job's plan and view out of its job file.

    Raises:
        PlanError: the file, or the plan or the job in it is wrong.
    """
    if "plan" not in read_yaml(path):
        return Reading(Plan.load(path), None)
    job = load_job(path, default="classify")
    return Reading(job.plan, job.view)


def _read_plan(written: Any, path: Path) -> Plan:
    if isinstance(written, str):
        return Plan.load(path.parent / written)
    if isinstance(written, dict):
        return build_checked(Plan, written, where=f"{path}: plan", folder=path.parent)
    raise PlanError(f"{path}: plan: wanted a path or an inline plan, got {written!r}")
