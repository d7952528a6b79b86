"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class EngineName(StrEnum):
    """Where batches are made."""

    local = "local"
    ray = "ray"


class PlacementName(StrEnum):
    """Where a batch job runs on a cluster."""

    colocated = "colocated"
    separate = "separate"


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON for machines.")]
Out = Annotated[str, typer.Option("--out", help="Folder for the results, or a URI such as s3://bucket/run.")]
OutFolder = Annotated[str, typer.Option("--out", help="Folder for the results.")]

EngineOption = Annotated[
    EngineName, typer.Option("--engine", help="local: threads of this process; ray: workers of a cluster.")
]
Address = Annotated[
    str | None,
    typer.Option(help="Of the Ray cluster: host:port, ray://host:port or auto; this machine without it."),
]
Workers = Annotated[int, typer.Option(min=0, help="Ray workers; 0 is as many as there is room for.")]
CpusPerWorker = Annotated[
    float | None,
    typer.Option(
        help="CPUs that one worker holds, each with a thread; the plan's resources or 1 without it."
    ),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        help="GPUs that one worker of the job holds, 0.5 shares one; the plan's resources or 0 without it."
    ),
]
Placement = Annotated[
    PlacementName,
    typer.Option(
        help="colocated: the job runs where its batches are made, so that no pixel travels; separate: some "
        "workers make batches, others, with the GPUs, work on them."
    ),
]
JobWorkers = Annotated[
    int,
    typer.Option(min=1, help="With --placement separate: workers that work on batches which others make."),
]
Memory = Annotated[
    str | None,
    typer.Option("--memory", help="What may be in flight, such as 2G; a quarter of the machine without it."),
]
Threads = Annotated[
    int,
    typer.Option(help="Threads that decode and augment; 0 is one for each core. On Ray: --cpus-per-worker."),
]
AllowImport = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-import",
        metavar="MODULE",
        help="A module, with its submodules, whose classes the plan or the job file may name; importing it runs its code. "
        "May be repeated.",
    ),
]
