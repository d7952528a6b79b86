"""Options shared by several commands."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class EngineName(StrEnum):
    """Values of ``--engine``."""

    local = "local"
    ray = "ray"


class PlacementName(StrEnum):
    """Values of ``--placement``."""

    colocated = "colocated"
    separate = "separate"


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Out = Annotated[str, typer.Option("--out", help="Output folder, or a URI such as s3://bucket/run.")]
OutFolder = Annotated[str, typer.Option("--out", help="Output folder.")]

EngineOption = Annotated[
    EngineName,
    typer.Option("--engine", help="local: threads of this process; ray: workers of a Ray cluster."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Address of the Ray cluster: host:port, ray://host:port or auto (default: this machine)."
    ),
]
Workers = Annotated[int, typer.Option(min=0, help="Number of Ray workers; 0 for as many as fit.")]
CpusPerWorker = Annotated[
    float | None,
    typer.Option(help="CPUs per Ray worker, with one thread each (default: the plan's `resources`, or 1)."),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        help="GPUs per Ray worker of the job; 0.5 shares one (default: the plan's `resources`, or 0)."
    ),
]
Placement = Annotated[
    PlacementName,
    typer.Option(
        help="colocated: workers process the batches they load, so that no images are transferred; separate: CPU "
        "workers load batches and other workers, with the GPUs, process them."
    ),
]
JobWorkers = Annotated[
    int,
    typer.Option(min=1, help="With --placement separate: number of workers that process batches."),
]
Memory = Annotated[
    str | None,
    typer.Option("--memory", help="Memory limit for prefetching, such as 2G (default: 25% of the memory)."),
]
Threads = Annotated[
    int,
    typer.Option(
        help="Threads for decoding and augmentation; 0 for one per core. On Ray: --cpus-per-worker."
    ),
]
AllowImport = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-import",
        metavar="MODULE",
        help="Allow the plan or job file to import classes from this module and its submodules, which runs their code; "
        "repeatable.",
    ),
]


def check_weights(model: str | None, weights: str | None) -> None:
    """Check that there is a network for ``--weights``.

    Raises:
        RequestError: ``--model`` is missing.
    """
    from ..pipeline.errors import RequestError

    if weights is not None and model is None:
        raise RequestError(
            f"--weights: expected --model beside it, got {weights!r} alone; name the network that the weights are of, or leave "
            "--weights out"
        )
