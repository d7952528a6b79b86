"""Build the engine or the trainer that the options of a command ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .options import EngineName, PlacementName


def open_engine(
    engine: EngineName = EngineName.local,
    *,
    threads: int = 0,
    memory: str | None = None,
    address: str | None = None,
    workers: int = 0,
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
    placement: PlacementName = PlacementName.colocated,
    job_workers: int = 1,
) -> Any:
    """Build the engine that the options ask for; nothing is started yet.

    Raises:
        RequestError: options that do not belong together, or that cannot be.
    """
    from ..pipeline.errors import RequestError
    from ..pipeline.machine import parse_size
    from ..pipeline.runtime.local_engine import LocalEngine

    memory_bytes = parse_size(memory) if memory else 0
    if engine is EngineName.local:
        asked = (address, workers, cpus_per_worker, gpus_per_worker, placement, job_workers)
        if asked != (None, 0, None, None, PlacementName.colocated, 1):
            raise RequestError(
                "--engine: expected --engine ray beside --address, --workers, --cpus-per-worker, --gpus-per-worker, "
                "--placement or --job-workers, got local; add --engine ray, or leave them out"
            )
        return LocalEngine(num_threads=threads, memory_bytes=memory_bytes)
    from ..workers.ray.cluster import ResourceRequest
    from ..workers.ray.engine import RayEngine

    if threads:
        raise RequestError(
            f"--threads: expected --cpus-per-worker with --engine ray, got --threads {threads}; "
            "a worker has a thread for each of its CPUs"
        )
    per_worker = ResourceRequest(cpus_per_worker, gpus_per_worker)
    return RayEngine(address, workers, per_worker, placement.value, memory_bytes, num_job_workers=job_workers)


def open_ray(
    address: str | None,
    workers: int,
    cpus_per_worker: float | None,
    gpus_per_worker: float | None,
    memory: str | None,
) -> Any:
    """Build the engine of a cluster; nothing is started yet."""
    return open_engine(
        EngineName.ray,
        memory=memory,
        address=address,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
    )


def open_service(
    job: Path, default: str, *, options: Mapping[str, Any], allow_import: Sequence[str] = ()
) -> Any:
    """Build the engine whose batches come from the service that a job file names; None where it names none.

    Args:
        job: the job file.
        default: the job's name where the file has none.
        options: what ``open_engine`` would be given.
        allow_import: modules that the job file may import from.

    Raises:
        RequestError: options of workers, which the service has, or a job that the service does not feed.
    """
    from ..pipeline.errors import RequestError
    from ..pipeline.jobs.job_file import load_job, load_service
    from ..pipeline.machine import parse_size
    from ..pipeline.runtime.local_engine import LocalEngine

    service = load_service(job)
    if service is None:
        return None
    own = {"engine": EngineName.local, "workers": 0, "cpus_per_worker": None, "gpus_per_worker": None}
    own.update(placement=PlacementName.colocated, job_workers=1)
    wrong = [name for name, value in own.items() if options.get(name, value) != value]
    if wrong:
        raise RequestError(
            f"feed: expected only --address, --threads and --memory beside service://{service.name}, got "
            f"--{wrong[0].replace('_', '-')}; give that to `lightwell serve`, or leave `feed` out of {job}"
        )
    from ..workers.service.engine import ServiceEngine, unique_name

    found = load_job(job, default=default, allow_import=allow_import)
    local = LocalEngine(
        options["threads"], memory_bytes=parse_size(options["memory"]) if options["memory"] else 0
    )
    engine = ServiceEngine(
        service.name, options["address"] or "auto", service.consumer or unique_name(), local
    )
    engine.check(found.plan, found.view)
    return engine


def open_trainer(
    engine: EngineName,
    *,
    threads: int,
    memory: str | None,
    address: str | None,
    workers: int,
    cpus_per_worker: float | None,
    gpus_per_worker: float | None,
    max_failures: int,
    fed: Any = None,
) -> Any:
    """Build what trains where the options say, or with the engine of a service; nothing is started yet.

    Raises:
        RequestError: options that do not belong together, or that cannot be.
    """
    from ..workers.train.in_process import LocalTrainer
    from ..workers.train.trainer import RayTrainer

    if fed is not None:
        return LocalTrainer(fed)
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
    return RayTrainer(found.address, found.num_workers, found.per_worker, found.memory_bytes, max_failures)
