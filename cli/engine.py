"""Build engines and trainers from command-line options."""

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
    """Build the engine for the given options, without starting it.

    Raises:
        RequestError: options conflict or are invalid.
    """
    from ..pipeline.errors import RequestError
    from ..pipeline.machine import parse_size
    from ..pipeline.runtime.local_engine import LocalEngine

    memory_bytes = parse_size(memory) if memory else 0
    if engine is EngineName.local:
        ray_options = (address, workers, cpus_per_worker, gpus_per_worker, placement, job_workers)
        if ray_options != (None, 0, None, None, PlacementName.colocated, 1):
            raise RequestError(
                "--engine: expected ray with --address, --workers, --cpus-per-worker, --gpus-per-worker, --placement or "
                "--job-workers, got local; add --engine ray, or remove these options"
            )
        return LocalEngine(num_threads=threads, memory_bytes=memory_bytes)
    from ..workers.ray.cluster import ResourceRequest
    from ..workers.ray.engine import RayEngine

    if threads:
        raise RequestError(
            f"--threads: expected --cpus-per-worker with --engine ray, got --threads {threads}; "
            "each worker runs one thread per CPU"
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
    """Build the Ray engine for the given options, without starting it."""
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
    """Build an engine that reads batches from the service named in a job file; None if it names none.

    Args:
        job: the job file.
        default: the type of the job if the file names none.
        options: the options for ``open_engine``.
        allow_import: modules that the job file may import from.

    Raises:
        RequestError: worker options are given, or the service does not serve the job's plan and view.
    """
    from ..pipeline.errors import RequestError
    from ..pipeline.jobs.job_file import load_job, load_service
    from ..pipeline.machine import parse_size
    from ..pipeline.runtime.local_engine import LocalEngine

    service = load_service(job)
    if service is None:
        return None
    defaults = {"engine": EngineName.local, "workers": 0, "cpus_per_worker": None, "gpus_per_worker": None}
    defaults.update(placement=PlacementName.colocated, job_workers=1)
    wrong = [name for name, value in defaults.items() if options.get(name, value) != value]
    if wrong:
        raise RequestError(
            f"feed: expected only --address, --threads and --memory with service://{service.name}, got "
            f"--{wrong[0].replace('_', '-')}; pass it to `lightwell serve`, or remove `feed` from {job}"
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
    service_engine: Any = None,
) -> Any:
    """Build a local or Ray trainer, or a local one with the engine of a service, without starting it.

    Raises:
        RequestError: options conflict or are invalid.
    """
    from ..workers.train.local_trainer import LocalTrainer
    from ..workers.train.trainer import RayTrainer

    if service_engine is not None:
        return LocalTrainer(service_engine)
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
