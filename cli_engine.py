"""The options that say where a command runs: in this process or on a Ray cluster; no logic."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer


class EngineName(StrEnum):
    """Where batches are made."""

    local = "local"
    ray = "ray"


class PlacementName(StrEnum):
    """Where a batch job runs on a cluster."""

    colocated = "colocated"
    separate = "separate"


EngineOption = Annotated[
    EngineName, typer.Option("--engine", help="local: threads of this process; ray: workers of a cluster.")
]
Address = Annotated[
    str | None,
    typer.Option(help="Of the Ray cluster: host:port, ray://host:port or auto; this machine without it."),
]
Workers = Annotated[int, typer.Option(min=0, help="Ray workers; 0 is as many as there is room for.")]
CpusPerWorker = Annotated[float, typer.Option(help="CPUs that one worker holds, each with a thread.")]
GpusPerWorker = Annotated[float, typer.Option(help="GPUs that one worker of the job holds; 0.5 shares one.")]
Placement = Annotated[
    PlacementName,
    typer.Option(
        help="colocated: the job runs where its batches are made, so that no pixel travels; separate: some "
        "workers make batches, others, with the GPUs, work on them."
    ),
]
Memory = Annotated[
    str | None,
    typer.Option("--memory", help="What may be in flight, such as 2G; a quarter of the machine without it."),
]
Threads = Annotated[
    int,
    typer.Option(help="Threads that decode and augment; 0 is one for each core. On Ray: --cpus-per-worker."),
]


def open_engine(
    engine: EngineName = EngineName.local,
    *,
    threads: int = 0,
    memory: str | None = None,
    address: str | None = None,
    workers: int = 0,
    cpus_per_worker: float = 1,
    gpus_per_worker: float = 0,
    placement: PlacementName = PlacementName.colocated,
) -> Any:
    """Build the engine that the options ask for; nothing is started yet.

    Raises:
        RequestError: options that do not belong together, or that cannot be.
    """
    from .pipeline.engine.feed import LocalEngine
    from .pipeline.engine.machine import parse_size
    from .pipeline.errors import RequestError

    memory_bytes = parse_size(memory) if memory else 0
    if engine is EngineName.local:
        asked = (address, workers, cpus_per_worker, gpus_per_worker, placement)
        if asked != (None, 0, 1, 0, PlacementName.colocated):
            raise RequestError(
                "--engine: wanted --engine ray beside --address, --workers, --cpus-per-worker, --gpus-per-worker or "
                "--placement, got local; add --engine ray, or leave them out"
            )
        return LocalEngine(num_threads=threads, memory_bytes=memory_bytes)
    from .workers.cluster import Resources
    from .workers.engine import RayEngine

    if threads:
        raise RequestError(
            f"--threads: wanted --cpus-per-worker with --engine ray, got --threads {threads}; "
            "a worker has a thread for each of its CPUs"
        )
    each = Resources(cpus_per_worker, gpus_per_worker)
    return RayEngine(address, workers, each, placement.value, memory_bytes)


def open_trainer(
    engine: EngineName,
    *,
    threads: int,
    memory: str | None,
    address: str | None,
    workers: int,
    cpus_per_worker: float,
    gpus_per_worker: float,
    max_failures: int,
) -> Any:
    """Build what trains where the options say; nothing is started yet.

    Raises:
        RequestError: options that do not belong together, or that cannot be.
    """
    from .workers.train.here import LocalTrainer
    from .workers.train.trainer import RayTrainer

    found = open_engine(
        engine,
        threads=threads,
        memory=memory,
        address=address,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
    )
    if engine is EngineName.local:
        return LocalTrainer(found)
    return RayTrainer(found.address, found.num_workers, found.each, found.memory_bytes, max_failures)
