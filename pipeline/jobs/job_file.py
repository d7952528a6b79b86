"""Job files: ``job: NAME``, ``plan:`` (inline or a path) and the job's own keys, as YAML.

``feed: service://NAME`` takes the batches from a service on a cluster, which knows the job as ``service://NAME/CONSUMER``
where that is written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel

from ..config.checked_model import build_checked
from ..config.imports import AllowedModules
from ..config.path_fields import resolve_paths
from ..config.safe_yaml import read_yaml
from ..errors import LightwellError, PlanError
from ..plan.plan import Plan
from ..plan.view import View
from ..text import one_line, quoted
from .contracts import find_job

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
                    f"service: expected a name of letters, digits, '.', '_' and '-', got {quoted(name)}; choose another"
                )

    @classmethod
    def parse(cls, written: Any) -> Self:
        """Read ``service://NAME`` or ``service://NAME/CONSUMER``."""
        if not isinstance(written, str) or not written.startswith(SERVICE):
            raise PlanError(
                f"feed: expected {SERVICE}NAME, got {quoted(written)}; `lightwell services ls` lists the services, and without "
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


def load_job(
    path: Path, *, default: str, allow_import: Sequence[str] = (), contract: type[Any] | None = None
) -> Any:
    """Build the job that a file describes; relative paths count from the file's folder.

    Args:
        path: the YAML file.
        default: the job's name where the file has no ``job`` key.
        allow_import: modules that the job and its plan may be imported from, each with its submodules.
        contract: ``TrainingJob`` or ``BatchJob`` where only such a job will do.

    Raises:
        PlanError: the file, the plan in it or one of its keys is wrong, or it is another kind of job.
    """
    content = read_yaml(path)
    name = content.pop("job", default)
    if not isinstance(name, str):
        raise PlanError(f"{path}: job: expected a name or 'module:Name', got {quoted(name)}; correct it")
    try:
        job = find_job(name, allow_import=allow_import, contract=contract)
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from error
    content.pop("feed", None)  # says where it runs, not what it is
    if "plan" not in content:
        raise PlanError(f"{path}: plan: missing; add the path of a plan, or write it inline")
    allowed = AllowedModules.from_names(allow_import)
    plan = _read_plan(content.pop("plan"), path, allowed)
    if issubclass(job, BaseModel):
        return build_checked(
            job, {**content, "plan": plan}, where=str(path), folder=path.parent, allowed=allowed
        )
    try:
        return job(plan=plan, **resolve_paths(job, content, path.parent))
    except LightwellError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: '~name' without a home folder
        told = one_line(" ".join(str(error).split()))
        raise PlanError(f"{path}: {job.__name__}: {told}; check the keys of the job file") from error


def load_plan(path: Path, *, allow_import: Sequence[str] = ()) -> Plan:
    """Read a plan from its own file or out of a job file.

    Args:
        path: the YAML file.
        allow_import: modules that the plan may import from, each with its submodules.

    Raises:
        PlanError: the file or the plan in it is wrong.
    """
    content = read_yaml(path)
    if "plan" not in content:
        return Plan.load(path, allow_import=allow_import)
    return _read_plan(content["plan"], path, AllowedModules.from_names(allow_import))


def plan_warnings(path: Path, *, allow_import: Sequence[str] = ()) -> tuple[str, ...]:
    """Ask the job of a file in what its plan does not fit its model; nothing is said of a plan alone.

    A job answers by its method ``plan_warnings() -> Sequence[str]``, where it has one. One that cannot be asked yet, since
    its checkpoint is still to be trained, gives no answer.

    Args:
        path: the YAML file.
        allow_import: modules that the job and its plan may be imported from, each with its submodules.
    """
    content = read_yaml(path)
    if "plan" not in content:
        return ()
    for name in ("",) if "job" in content else ("classify", "gradcam"):
        try:
            job = load_job(path, default=name, allow_import=allow_import)
            return tuple(job.plan_warnings()) if hasattr(job, "plan_warnings") else ()
        except LightwellError:
            continue
    return ()


@dataclass(frozen=True)
class PlanAndView:
    """A plan with what a job reads of it."""

    plan: Plan
    view: View | None
    """None where the file is a plan and no job."""


def load_plan_and_view(path: Path, *, allow_import: Sequence[str] = ()) -> PlanAndView:
    """Read a plan from its own file, or a job's plan and view out of its job file.

    Args:
        path: the YAML file.
        allow_import: modules that the job and its plan may be imported from, each with its submodules.

    Raises:
        PlanError: the file, or the plan or the job in it is wrong.
    """
    if "plan" not in read_yaml(path):
        return PlanAndView(Plan.load(path, allow_import=allow_import), None)
    job = load_job(path, default="classify", allow_import=allow_import)
    view = getattr(job, "view", None)
    if not isinstance(view, View):
        raise PlanError(f"{path}: job: expected a job with a view, got one without; serve its plan instead")
    return PlanAndView(job.plan, view)


def _read_plan(written: Any, path: Path, allowed: AllowedModules) -> Plan:
    if isinstance(written, str):
        return Plan.load(path.parent / written, allow_import=allowed.names)
    if isinstance(written, dict):
        return build_checked(Plan, written, where=f"{path}: plan", folder=path.parent, allowed=allowed)
    raise PlanError(f"{path}: plan: expected a path or an inline plan, got {quoted(written)}; correct it")
