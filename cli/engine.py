"""Build engines and trainers from command-line options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
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


def engine_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Select the options of ``open_engine`` from the arguments of a command."""
    return {name: arguments[name] for name in signature(open_engine).parameters if name in arguments}


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
    from ..pipeline.errors import PlanError, RequestError
    from ..pipeline.jobs.job_file import load_job, load_service
    from ..pipeline.plan.view import View

    service = load_service(job)
    if service is None:
        return None
    used = {"address", "threads", "memory"}
    wrong = [
        name
        for name, option in signature(open_engine).parameters.items()
        if name not in used and options.get(name, option.default) != option.default
    ]
    if wrong:
        raise RequestError(
            f"feed: expected only --address, --threads and --memory with service://{service.name}, got "
            f"--{wrong[0].replace('_', '-')}; pass it to `lightwell serve`, or remove `feed` from {job}"
        )
    from ..workers.service.engine import ServiceEngine, unique_name

    found = load_job(job, default=default, allow_import=allow_import)
    if getattr(found, "feature_passes", None) is not None:  # the other consumers would wait for it
        raise PlanError(
            "feed: expected a job that reads the served batches, got one with feature_passes, which reads each image once; "
            f"remove one of them from {job}"
        )
    local = open_engine(threads=options["threads"], memory=options["memory"])
    engine = ServiceEngine(
        service.name, options["address"] or "auto", service.consumer or unique_name(), local
    )
    view = getattr(found, "view", None)
    if not isinstance(view, View):
        raise PlanError(
            f"feed: expected a job with a view, as a service serves one, got {type(found).__name__} without; remove `feed` "
            f"from {job}"
        )
    engine.check(found.plan, view)
    return engine


def open_trials(options: Mapping[str, Any], *, max_failures: int) -> Any:
    """Build what runs the trials of a sweep, in this process or on a cluster, without starting it.

    Args:
        options: the options for ``open_engine``.
        max_failures: on Ray, how often a trial is started again.

    Raises:
        RequestError: options conflict or are invalid.
    """
    from ..workers.train.ray_trials import RayTrials
    from ..workers.train.sweep import LocalTrials

    found = open_engine(**options)
    if options["engine"] is EngineName.local:
        return LocalTrials(found)
    return RayTrials(found.address, found.num_workers, found.per_worker, found.memory_bytes, max_failures)


def open_trainer(options: Mapping[str, Any], *, max_failures: int, service_engine: Any = None) -> Any:
    """Build a local or Ray trainer, or a local one with the engine of a service, without starting it.

    Args:
        options: the options for ``open_engine``.
        max_failures: on Ray, how often training is started again.
        service_engine: from ``open_service``.

    Raises:
        RequestError: options conflict or are invalid.
    """
    from ..workers.train.local_trainer import LocalTrainer
    from ..workers.train.trainer import RayTrainer

    if service_engine is not None:
        return LocalTrainer(service_engine)
    found = open_engine(**options)
    if options["engine"] is EngineName.local:
        return LocalTrainer(found)
    return RayTrainer(found.address, found.num_workers, found.per_worker, found.memory_bytes, max_failures)
