"""Runs a training job on a Ray cluster, from the driver's side."""

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
from ..local import resume_point
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
from ..results import TRAINING_NAMES, open_results
from .capacity import CapacityMonitor
from .rank import RankConfig, run_rank
from .reporter import Reporter

if TYPE_CHECKING:
    from ...pipeline.jobs.contracts import Console, TrainingJob

ASK_S = 0.5
MARK = re.compile(r"\.seen-[0-9a-f]{32}")
MAX_FAILURES = 8


@dataclass(frozen=True)
class RayTrainer:
    """Trains on a Ray cluster, data parallel: every rank reads, decodes and learns its slice of each batch itself.

    Checkpoints and results are written to ``out`` by the first rank, as the local engine writes them, not to Ray's own
    storage: so either engine goes on with what the other began.
    """

    address: str | None = None
    """``host:port``, ``ray://host:port`` or ``auto``; None starts Ray on this machine."""
    num_workers: int = 0
    """Ranks; 0 takes the most that there is room for and that can share a batch."""
    per_worker: Resources | ResourceRequest = field(default_factory=ResourceRequest)
    """What one rank holds, over what its plan says; it has as many threads as CPUs."""
    memory_bytes: int = 0
    """What may be in flight in one rank; 0 means a quarter of its machine, shared by the ranks that are there."""
    max_failures: int = MAX_FAILURES
    """So often the ranks are started anew after one died; preempted nodes are not counted."""

    def run(
        self, job: TrainingJob, out: Path | str, console: Console, *, reads: Sequence[Path | str] = ()
    ) -> Mapping[str, Any]:
        """Run a training job to its end, whatever dies meanwhile but this process and its node; returns its metrics.

        Args:
            job: what is run; its paths are absolute, and every node sees what they name.
            out: a folder that all nodes share, or a URI that fsspec reaches.
            console: shows what the first rank says.
            reads: files that the run reads and that the job does not name, such as its job file.

        Raises:
            PlanError: the job cannot be shared by so many ranks, the cluster can never hold them, ``out`` holds
                another run, or a node does not see it.
            RunError: there is no cluster, or too many ranks died.
            LightwellError: whatever the plan, the feeds or the job raise.
        """
        out = absolute_out(out)
        check_data_parallel(job, self.num_workers or 1)
        self.per_worker.with_defaults(job.plan.resources)  # refused before Ray is touched
        with open_results(job, out, names=TRAINING_NAMES, reads=reads) as results:
            resume_point(job, results.path)
            with connected(self.address), sentinel_file(out) as sentinel:
                group = self._worker_group(job, list_nodes())
                return self._fit(job, out, group, sentinel, console)

    def _worker_group(self, job: TrainingJob, nodes: list[NodeResources]) -> WorkerGroup:
        """Check that the ranks fit; where no number is given, find the most that do."""
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

        here = ray.get_runtime_context().get_node_id()
        stay = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
        reporter: Any = ray.remote(Reporter).options(num_cpus=0, scheduling_strategy=stay).remote()
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
                    f"ray: {describe_failure(failure)}; run the same command again to go on"
                ) from failure
        metrics, error = ray.get(reporter.outcome.remote())
        ray.kill(reporter)
        if error is not None:
            raise error
        if metrics is None:
            raise KeyboardInterrupt  # Ray ends in good order, and without a word
        return metrics  # type: ignore[no-any-return]


def max_ranks(job: TrainingJob, most: int) -> int:
    """Find the most ranks, up to a number, that can share a job's batches; 1 where the job knows nothing of ranks."""
    for number in range(most, 1, -1):
        try:
            check_data_parallel(job, number)
        except PlanError:
            continue
        return number
    return 1


@contextmanager
def sentinel_file(out: str) -> Iterator[str]:
    """Leave a file in a folder by which others know it."""
    sentinel = f".seen-{uuid.uuid4().hex}"
    if is_remote(out):
        yield sentinel
        return
    for left in Path(out).glob(".seen-*"):
        if MARK.fullmatch(left.name):
            left.unlink()  # by a driver that was killed
    path = Path(out) / sentinel
    path.touch()
    try:
        yield sentinel
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def forward_output(reporter: Any, console: Console, watch: CapacityMonitor) -> Iterator[None]:
    """Show what is said at the desk as it comes and what Ray Train waits for, and at the end the rest."""
    import ray

    ended = threading.Event()

    def show() -> None:
        for line in ray.get(reporter.take_lines.remote()):
            console.print(line)

    def keep_showing() -> None:
        while not ended.wait(ASK_S):
            show()
            if line := watch.update(list_nodes()):
                console.print(line)

    thread = threading.Thread(target=keep_showing, name="lightwell-desk", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        show()


@contextmanager
def restore_interrupts() -> Iterator[None]:
    """Take Ctrl-C back from Ray Train, which lets the ranks go and then ends the process as if all were done."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        raise KeyboardInterrupt from stop
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def describe_failure(failure: Exception) -> str:
    """Say in a line what Ray Train gave up for."""
    failures = getattr(failure, "worker_failures", None) or {0: failure}
    rank, error = next(iter(failures.items()))
    cause = getattr(error, "cause", None) or error
    return f"rank {rank} failed: {type(cause).__name__}: {str(cause).strip().splitlines()[-1]}"
