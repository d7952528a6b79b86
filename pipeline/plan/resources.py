"""What one worker of a cluster holds while it lives: the plan's key ``resources``. It changes no batch."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from ..config.argument_checks import check_number
from ..config.checked_model import CheckedModel
from ..errors import PlanError


class WorkerResources(CheckedModel):
    """CPUs and GPUs of each Ray worker, where the command line does not say; in one process it means nothing."""

    cpus: float = 1.0
    """Each with a thread."""
    gpus: float = 0.0
    """A fraction below one lets workers share a GPU."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_resources(self.cpus, self.gpus)
        return self

    def __str__(self) -> str:
        return format_resources(self.cpus, self.gpus)


def check_resources(cpus: float, gpus: float) -> None:
    """Refuse what a cluster cannot give.

    Raises:
        PlanError: nothing, less than nothing, or one GPU and a part of another.
    """
    check_number("resources.cpus", cpus)
    check_number("resources.gpus", gpus)
    if not (cpus >= 0 and gpus >= 0 and cpus + gpus > 0):
        raise PlanError(
            f"resources: expected some CPUs or GPUs per worker, got {format_resources(cpus, gpus) or 'none'}; give at least a "
            "fraction of one"
        )
    if gpus > 1 and gpus != int(gpus):
        raise PlanError(
            f"resources: expected a fraction of one GPU or whole GPUs per worker, got {gpus:g}; round it"
        )


def format_resources(cpus: float, gpus: float) -> str:
    """Write ``2 CPUs and 0.5 GPUs``."""
    return " and ".join(f"{number:g} {name}" for number, name in ((cpus, "CPUs"), (gpus, "GPUs")) if number)
