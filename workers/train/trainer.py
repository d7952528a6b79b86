"""Runs a training job on a Ray cluster, with Ray Train."""

from __future__ import annotations

import re
import signal
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...pipeline.errors import PlanError, RunError
from ..data_parallel import check_data_parallel
from ..local import check_request, resume_point
from ..output_store import absolute_out, is_remote
from ..ray.cluster import (
    NodeResources,
    ResourceRequest,
    Resources,
    WorkerGroup,
    check_capacity,
    connected,
    list_nodes,
)
from ..results import open_results
from .capacity import CapacityMonitor
from .rank import RankConfig, run_rank
from .reporter import Reporter

if TYPE_CHECKING:
    from ...pipeline.jobs.contracts import Console, TrainingJob

POLL_S = 0.5
SENTINEL = re.compile(r"\.seen-[0-9a-f]{32}")
MAX_FAILURES = 8


@dataclass(frozen=True)
class RayTrainer:
    """Data-parallel training on a Ray cluster: every rank reads, decodes and trains on its slice of each batch.

    The first rank writes checkpoints and results to ``out``, as the local engine does, not to Ray's own storage, so that
    either engine can resume the other's run.
    """

    address: str | None = None
    """``host:port``, ``ray://host:port`` or ``auto``; None starts Ray on this machine."""
    num_workers: int = 0
    """Number of ranks; 0 means the largest number that fits and can share a batch."""
    per_worker: Resources | ResourceRequest = field(default_factory=ResourceRequest)
    """Resources of one rank, overriding the plan; it has as many threads as CPUs."""
    memory_bytes: int = 0
    """Memory limit of one rank; 0 means 25 % of its machine, divided by the number of ranks there."""
    max_failures: int = MAX_FAILURES
    """Restarts after the death of a rank; preempted nodes are not counted."""

    def run(
        self, job: TrainingJob, out: Path | str, console: Console, *, reads: Sequence[Path | str] = ()
    ) -> Mapping[str, Any]:
        """Run a training job to its end; returns its metrics. Survives all failures but those of this process and its node.

        Args:
            job: the job; its paths are absolute and valid on every node.
            out: a folder shared by all nodes, or a URI supported by fsspec.
            console: shows the output of the first rank.
            reads: input files that the job does not name, such as its job file.

        Raises:
            PlanError: the job does not support so many ranks, the cluster can never hold them, ``out`` belongs to
                another run, or a node cannot access it.
            RunError: there is no cluster, or too many ranks died.
            LightwellError: errors of the plan, the feeds or the job.
        """
        out = absolute_out(out)
        check_data_parallel(job, self.num_workers or 1)
        self.per_worker.with_defaults(job.plan.resources)  # checked before Ray is started
        check_request(job, trains_here=False)
        with open_results(job, out, reads=reads) as results:
            resume_point(job, results.path)
            with connected(self.address), sentinel_file(out) as sentinel:
                group = self._worker_group(job, list_nodes())
                return self._fit(job, out, group, sentinel, console)

    def _worker_group(self, job: TrainingJob, nodes: list[NodeResources]) -> WorkerGroup:
        """Check that the ranks fit; without a number use as many as fit."""
        per_worker = self.per_worker.with_defaults(job.plan.resources)
        most = sum(node.max_workers(per_worker) for node in nodes)
        number = self.num_workers or max_ranks(job, most)
        group = WorkerGroup(number, per_worker)
        check_capacity([group], nodes)
        return group

    def _fit(
        self, job: TrainingJob, out: str, group: WorkerGroup, sentinel: str, console: Console
    ) -> Mapping[str, Any]:
        import ray
        from ray.exceptions import RayError
        from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchConfig, TorchTrainer

        from .failure_policy import StopOnPermanentError

        node_id = ray.get_runtime_context().get_node_id()
        affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)
        reporter: Any = ray.remote(Reporter).options(num_cpus=0, scheduling_strategy=affinity).remote()
        threads = max(1, int(group.per_worker.cpus))
        with tempfile.TemporaryDirectory(prefix="lightwell-") as storage:
            trainer = TorchTrainer(
                run_rank,
                train_loop_config={
                    "rank": RankConfig(job, out, reporter, sentinel, threads, self.memory_bytes)
                },
                torch_config=TorchConfig(backend="nccl" if group.per_worker.gpus >= 1 else "gloo"),
                scaling_config=ScalingConfig(
                    num_workers=group.num_workers,
                    use_gpu=group.per_worker.gpus > 0,
                    resources_per_worker={"CPU": group.per_worker.cpus, "GPU": group.per_worker.gpus},
                ),
                run_config=RunConfig(  # type: ignore[call-arg]  # typed as that of Train's first version
                    name="lightwell",
                    storage_path=storage,
                    failure_config=FailureConfig(max_failures=self.max_failures),
                    callbacks=cast("Any", [StopOnPermanentError(reporter)]),
                    logging_config=LoggingConfig(log_level="ERROR"),
                ),
            )
            try:
                with forward_output(reporter, console, CapacityMonitor(group)), restore_interrupts():
                    trainer.fit()
            except (TrainingFailedError, RayError) as failure:
                metrics, error = ray.get(reporter.outcome.remote())
                raise error or RunError(
                    f"ray: {describe_failure(failure)}; run the same command again to resume"
                ) from failure
        metrics, error = ray.get(reporter.outcome.remote())
        ray.kill(reporter)
        if error is not None:
            raise error
        if metrics is None:
            raise KeyboardInterrupt  # Ray Train has ended normally, without a result
        return metrics  # type: ignore[no-any-return]


def max_ranks(job: TrainingJob, most: int) -> int:
    """Return the largest number of ranks, up to a limit, that can share a job's batches; 1 if it supports no ranks."""
    for number in range(most, 1, -1):
        try:
            check_data_parallel(job, number)
        except PlanError:
            continue
        return number
    return 1


@contextmanager
def sentinel_file(out: str) -> Iterator[str]:
    """Create a sentinel file in a folder, by which other nodes recognize it."""
    sentinel = f".seen-{uuid.uuid4().hex}"
    if is_remote(out):
        yield sentinel
        return
    for left in Path(out).glob(".seen-*"):
        if SENTINEL.fullmatch(left.name):
            left.unlink()  # of a killed driver
    path = Path(out) / sentinel
    path.touch()
    try:
        yield sentinel
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def forward_output(reporter: Any, console: Console, watch: CapacityMonitor) -> Iterator[None]:
    """Forward the ranks' output and capacity warnings to the console until the end of the context."""
    import ray

    ended = threading.Event()

    def show() -> None:
        for line in ray.get(reporter.take_lines.remote()):
            console.print(line)

    def keep_showing() -> None:
        while not ended.wait(POLL_S):
            show()
            if line := watch.update(list_nodes()):
                console.print(line)

    thread = threading.Thread(target=keep_showing, name="lightwell-reporter", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        show()


@contextmanager
def restore_interrupts() -> Iterator[None]:
    """Restore Ctrl-C after Ray Train, whose handler stops the ranks and exits as if all had succeeded."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        raise KeyboardInterrupt from stop
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def describe_failure(failure: Exception) -> str:
    """Format the error after which Ray Train gave up, as one line."""
    failures = getattr(failure, "worker_failures", None) or {0: failure}
    rank, error = next(iter(failures.items()))
    cause = getattr(error, "cause", None) or error
    return f"rank {rank} failed: {type(cause).__name__}: {str(cause).strip().splitlines()[-1]}"
