"""Job files: ``job: NAME``, ``plan:`` (inline or a path) and the job's own keys, as YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from .errors import PlanError
from .jobs import find_job
from .plan import Plan, build_checked, read_yaml


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
    if "plan" not in content:
        raise PlanError(f"{path}: plan: missing; add the path of a plan, or write it inline")
    plan = _read_plan(content.pop("plan"), path)
    if issubclass(job, BaseModel):
        return build_checked(job, {**content, "plan": plan}, where=str(path), folder=path.parent)
    try:
        return job(plan=plan, **content)
    except TypeError as error:
        raise PlanError(f"{path}: {job.__name__}: {error}; check the keys of the job file") from error


def load_plan(path: Path) -> Plan:
    """Read a plan from its own file or out of a job file.

    Raises:
        PlanError: the file or the plan in it is wrong.
    """
    content = read_yaml(path)
    return _read_plan(content["plan"], path) if "plan" in content else Plan.load(path)


def _read_plan(written: Any, path: Path) -> Plan:
    if isinstance(written, str):
        return Plan.load(path.parent / written)
    if isinstance(written, dict):
        return build_checked(Plan, written, where=f"{path}: plan", folder=path.parent)
    raise PlanError(f"{path}: plan: wanted a path or an inline plan, got {written!r}")
