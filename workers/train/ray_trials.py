"""Trials of a sweep as tasks of a Ray cluster, as many at once as fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...pipeline.errors import LightwellError
from ...pipeline.jobs.sweep import Trial
from ...pipeline.machine import default_memory_bytes
from ...pipeline.runtime.local_engine import LocalEngine
from ..ray.cluster import ResourceRequest, Resources, WorkerGroup, check_capacity, connected, list_nodes
from .rank import check_shared_folder
from .sweep import Outcome, first_of_each_work, run_trial, share_work
from .trainer import MAX_FAILURES, sentinel_file

if TYPE_CHECKING:
    from ...pipeline.jobs.contracts import Console


@dataclass(frozen=True)
class TrialTask:
    """A trial with all that its process needs. Pickled by value."""

    trial: Trial
    out: str
    sentinel: str
    """Name of a file created by the driver in ``out``, by which a process recognizes the shared folder."""
    num_threads: int
    memory_bytes: int
    """Memory limit; 0 means 25 % of its machine, divided by the number of trials there."""
    num_per_node: int

    def run(self) -> Outcome:
        """Run the trial."""
        try:
            engine = self._open_engine()
        except LightwellError as error:
            return Outcome(error=str(error))
        return run_trial(self.trial, engine, Path(self.out))

    def share(self) -> LightwellError | None:
        """Compute the work that the trial shares with others; returns the error that prevents it."""
        try:
            share_work(self.trial.job, self._open_engine(), Path(self.out))
        except LightwellError as error:
            return error
        return None

    def _open_engine(self) -> LocalEngine:
        import ray
        import torch

        check_shared_folder(self.out, self.sentinel, f"node {ray.get_runtime_context().get_node_id()[:8]}")
        torch.set_num_threads(self.num_threads)
        memory_bytes = self.memory_bytes or default_memory_bytes() // self.num_per_node
        return LocalEngine(num_threads=self.num_threads, memory_bytes=memory_bytes)


@dataclass(frozen=True)
class RayTrials:
    """Runs trials as tasks of a cluster. Each is one process, with the resources of a worker.

    The tasks write to the folder of the sweep, not to Ray's storage, so that either engine continues the other's sweep. A
    task whose process or node dies is started again and resumes from its checkpoint.
    """

    address: str | None = None
    """``host:port``, ``ray://host:port`` or ``auto``; None starts Ray on this machine."""
    num_workers: int = 0
    """Number of trials at once; 0 means as many as fit."""
    per_worker: Resources | ResourceRequest = field(default_factory=ResourceRequest)
    """Resources of one trial, overriding the plan; it has as many threads as CPUs."""
    memory_bytes: int = 0
    """Memory limit for the batches of one trial; 0 means 25 % of its machine, divided by the number of trials that fit."""
    max_failures: int = MAX_FAILURES
    """Restarts of a trial after the death of its process."""
    is_local = False

    def run(self, trials: Sequence[Trial], out: Path, console: Console) -> Iterator[tuple[Trial, Outcome]]:
        """Run trials; see ``TrialRunner``.

        Raises:
            PlanError: the cluster can never hold a trial.
            RunError: there is no cluster.
            LightwellError: errors of the work that trials share.
        """
        per_worker = self.per_worker.with_defaults(trials[0].job.plan.resources)
        with connected(self.address), sentinel_file(str(out)) as sentinel:
            nodes = list_nodes()
            check_capacity([WorkerGroup(1, per_worker)], nodes)
            fitting = sum(node.max_workers(per_worker) for node in nodes)
            most = min(self.num_workers or fitting, len(trials))
            per_node = max(node.max_workers(per_worker) for node in nodes)
            tasks = [
                TrialTask(
                    trial,
                    str(out),
                    sentinel,
                    max(1, int(per_worker.cpus)),
                    self.memory_bytes,
                    max(1, min(per_node, most)),
                )
                for trial in trials
            ]
            yield from self._run(tasks, most, per_worker, console)

    def _run(
        self, tasks: Sequence[TrialTask], most: int, per_worker: Resources, console: Console
    ) -> Iterator[tuple[Trial, Outcome]]:
        import ray
        from ray.exceptions import RayError

        options = {
            "num_cpus": per_worker.cpus,
            "num_gpus": per_worker.gpus,
            "max_retries": self.max_failures,
            "retry_exceptions": False,
        }
        shares = {trial.name for trial in first_of_each_work([task.trial for task in tasks])}
        share: Any = ray.remote(TrialTask.share).options(**options)
        for task in tasks:
            if task.trial.name in shares:
                console.print("computing the features that the trials share")
                if (error := ray.get(share.remote(task))) is not None:
                    raise error
        console.print(f"{len(tasks)} trials, up to {most} at once with {per_worker} each")
        remote: Any = ray.remote(TrialTask.run).options(**options)
        waiting: list[TrialTask] = list(tasks)
        running: dict[Any, Trial] = {}
        try:
            while waiting or running:
                while waiting and len(running) < most:
                    task = waiting.pop(0)
                    running[remote.remote(task)] = task.trial
                (ready,), _ = ray.wait(list(running), num_returns=1)
                trial = running.pop(ready)
                try:
                    outcome = ray.get(ready)
                except RayError as error:
                    outcome = Outcome(error=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
                yield trial, outcome
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
