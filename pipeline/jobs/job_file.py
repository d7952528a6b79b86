"""Job files: ``job: NAME``, ``plan:`` (inline or a path) and the job's own keys, as YAML.

``feed: service://NAME`` reads the batches from a service on a cluster; ``service://NAME/CONSUMER`` also sets the job's name
there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel

from ..config.checked_model import build_checked
from ..config.imports import AllowedModules
from ..config.path_fields import resolve_paths
from ..config.safe_yaml import read_yaml
from ..errors import LightwellError, PlanError
from ..plan.plan import Plan
from ..plan.view import View
from ..text import one_line, quoted
from .find_job import find_job
from .stages import WarnsAboutPlan

SERVICE = "service://"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ServiceName:
    """Name of a service, and of a consumer there.

    Raises:
        PlanError: a name is invalid.
    """

    name: str
    consumer: str = ""
    """Name of the job at the service; empty for a unique one."""

    def __post_init__(self) -> None:
        for name in (self.name, *filter(None, (self.consumer,))):
            if not NAME.fullmatch(name):
                raise PlanError(
                    f"service: expected a name of letters, digits, '.', '_' and '-', got {quoted(name)}; choose another"
                )

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Parse ``service://NAME`` or ``service://NAME/CONSUMER``."""
        if not isinstance(value, str) or not value.startswith(SERVICE):
            raise PlanError(
                f"feed: expected {SERVICE}NAME, got {quoted(value)}; `lightwell services ls` lists the services, and without "
                "the key the job makes its own batches"
            )
        name, _, consumer = value.removeprefix(SERVICE).partition("/")
        return cls(name, consumer)


def load_service(path: Path) -> ServiceName | None:
    """Read the service of a job file; None if the job makes its own batches.

    Raises:
        PlanError: the file or the key is wrong.
    """
    content = read_yaml(path)
    return ServiceName.parse(content["feed"]) if "feed" in content else None


def load_job(
    path: Path,
    *,
    default: str,
    allow_import: Sequence[str] = (),
    contract: type[Any] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Any:
    """Build the job of a job file; paths are relative to the file's folder.

    Args:
        path: the YAML file.
        default: name of the job if the file has no ``job`` key.
        allow_import: modules that the job and its plan may be imported from, each with its submodules.
        contract: required kind of job, ``TrainingJob`` or ``BatchJob``, of one or more stages; None allows both.
        changes: keys with other values than in the file.

    Raises:
        PlanError: the file, its plan or one of its keys is invalid, or it is another kind of job.
    """
    content = {**read_yaml(path), **(changes or {})}
    name = content.pop("job", default)
    if not isinstance(name, str):
        raise PlanError(f"{path}: job: expected a name or 'module:Name', got {quoted(name)}; correct it")
    try:
        job = find_job(name, allow_import=allow_import, contract=contract)
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from error
    content.pop("feed", None)  # not a field of the job
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
        reason = one_line(" ".join(str(error).split()))
        raise PlanError(f"{path}: {job.__name__}: {reason}; check the keys of the job file") from error


def dump_job(job: Any, path: Path, *, default: str) -> str:
    """Return a job that was built from a job file as a job file of its own: with its plan, and absolute paths.

    Args:
        job: the job, possibly with other values than in the file if it is a pydantic model.
        path: the job file.
        default: name of the job if the file has no ``job`` key.
    """
    content = read_yaml(path)
    name = content.pop("job", default)
    if isinstance(job, BaseModel):
        keys, folder = job.model_dump(mode="json"), Path.cwd()
    else:
        keys, folder = content, path.parent.absolute()
    del keys["plan"]
    keys.pop("feed", None)  # not a field of the job
    plain = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in resolve_paths(type(job), keys, folder).items()
    }
    plan = job.plan.dump() | {"index": str(job.plan.index.absolute())}
    return str(yaml.safe_dump({"job": name, **plain, "plan": plan}, sort_keys=False, allow_unicode=True))


def load_plan(path: Path, *, allow_import: Sequence[str] = ()) -> Plan:
    """Read a plan from its own file or from a job file.

    Args:
        path: the YAML file.
        allow_import: modules that the plan may import from, each with its submodules.

    Raises:
        PlanError: the file or its plan is invalid.
    """
    content = read_yaml(path)
    if "plan" not in content:
        return Plan.load(path, allow_import=allow_import)
    return _read_plan(content["plan"], path, AllowedModules.from_names(allow_import))


def plan_warnings(path: Path, *, allow_import: Sequence[str] = ()) -> tuple[str, ...]:
    """Ask the job of a file in what its plan does not fit its model; nothing is said of a plan alone.

    A job answers if it is a ``WarnsAboutPlan``. One that cannot be asked yet, since its checkpoint is still to be trained,
    gives no answer.

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
            return tuple(job.plan_warnings()) if isinstance(job, WarnsAboutPlan) else ()
        except LightwellError:
            continue
    return ()


@dataclass(frozen=True)
class PlanAndView:
    """A plan and the view that a job reads."""

    plan: Plan
    view: View | None
    """None if the file is a plan."""


def load_plan_and_view(path: Path, *, allow_import: Sequence[str] = ()) -> PlanAndView:
    """Read a plan from its own file, or plan and view from a job file.

    Args:
        path: the YAML file.
        allow_import: modules that the job and its plan may be imported from, each with its submodules.

    Raises:
        PlanError: the file, its plan or its job is invalid.
    """
    if "plan" not in read_yaml(path):
        return PlanAndView(Plan.load(path, allow_import=allow_import), None)
    job = load_job(path, default="classify", allow_import=allow_import)
    view = getattr(job, "view", None)
    if not isinstance(view, View):
        raise PlanError(f"{path}: job: expected a job with a view, got one without; serve its plan instead")
    return PlanAndView(job.plan, view)


def _read_plan(value: Any, path: Path, allowed: AllowedModules) -> Plan:
    if isinstance(value, str):
        return Plan.load(path.parent / value, allow_import=allowed.names)
    if isinstance(value, dict):
        return build_checked(Plan, value, where=f"{path}: plan", folder=path.parent, allowed=allowed)
    raise PlanError(f"{path}: plan: expected a path or an inline plan, got {quoted(value)}; correct it")
