"""CPUs and GPUs per Ray worker: the plan's key ``resources``. Does not affect batches."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from ..config.argument_checks import check_number
from ..config.checked_model import CheckedModel
from ..errors import PlanError


class WorkerResources(CheckedModel):
    """Default CPUs and GPUs per Ray worker, overridden by the command line; ignored by the local engine."""

    cpus: float = 1.0
    """CPUs per worker, with one thread each."""
    gpus: float = 0.0
    """GPUs per worker; with a fraction below 1, workers share a GPU."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_resources(self.cpus, self.gpus)
        return self

    def __str__(self) -> str:
        return format_resources(self.cpus, self.gpus)


def check_resources(cpus: float, gpus: float) -> None:
    """Check CPUs and GPUs per worker.

    Raises:
        PlanError: both are zero, one is negative, or GPUs are a fraction above 1.
    """
    for name, value in (("cpus", cpus), ("gpus", gpus)):
        check_number(f"resources.{name}", value)
        if value < 0:
            raise PlanError(f"resources.{name}: expected 0 or more, got {value:g}; correct it")
    if not cpus + gpus:
        raise PlanError(
            "resources: expected some CPUs or GPUs per worker, got none; give at least a fraction of one"
        )
    if gpus > 1 and gpus != int(gpus):
        raise PlanError(
            f"resources: expected a fraction of one GPU or whole GPUs per worker, got {gpus:g}; round it"
        )


def format_resources(cpus: float, gpus: float) -> str:
    """Format resources, such as ``2 CPUs and 0.5 GPUs``."""
    return " and ".join(f"{number:g} {name}" for number, name in ((cpus, "CPUs"), (gpus, "GPUs")) if number)
