"""Worker function of Ray Train: opens the feed of its rank in its own process and runs the job."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from ...pipeline.errors import LightwellError, PlanError
from ...pipeline.jobs.progress import LineConsole, SilentConsole
from ...pipeline.machine import default_memory_bytes
from ...pipeline.runtime.local_engine import LocalEngine
from ..local import run_training_job
from ..output_store import is_remote

if TYPE_CHECKING:
    from ...pipeline.jobs.contracts import TrainingJob


@dataclass(frozen=True)
class RankConfig:
    """Configuration of every rank. Pickled by value."""

    job: TrainingJob
    out: str
    reporter: Any
    """Handle of a ``Reporter``."""
    sentinel: str
    """Name of a file created by the driver in ``out``, by which a rank recognizes the shared folder."""
    num_threads: int
    memory_bytes: int
    """Memory limit of one rank; 0 means 25 % of its machine, divided by the number of ranks there."""


def run_rank(loop_config: dict[str, Any]) -> None:
    """Run one rank to its end, configured by the ``RankConfig`` under ``rank``.

    A LightwellError is reported to the driver and not retried. After any other error Ray Train restarts all ranks, which
    resume from the last checkpoint.
    """
    import ray

    config: RankConfig = loop_config["rank"]
    try:
        run_job(config)
    except LightwellError as error:
        ray.get(config.reporter.fail.remote(error))
        raise


def run_job(config: RankConfig) -> None:
    """Run the job on this rank's share of the batches."""
    import ray
    import ray.train
    import torch

    context = ray.train.get_context()
    is_main = context.get_world_rank() == 0
    torch.set_num_threads(config.num_threads)
    check_shared_folder(config.out, config.sentinel, f"node {context.get_node_rank()}")
    memory = config.memory_bytes or default_memory_bytes() // context.get_local_world_size()
    engine = LocalEngine(num_threads=config.num_threads, memory_bytes=memory)
    console = LineConsole(cast("TextIO", ReporterStream(config.reporter))) if is_main else SilentConsole()
    console.print(f"training on {context.get_world_size()} ranks, {config.num_threads} threads each")
    metrics = run_training_job(
        config.job, engine, config.out, console, lock=False
    )  # the driver holds the lock
    if is_main:
        ray.get(config.reporter.finish.remote(metrics))


def check_shared_folder(out: str, sentinel: str, node: str) -> None:
    """Check that this process has access to the driver's output folder.

    Args:
        out: the folder, or a URI.
        sentinel: name of a file created by the driver there.
        node: name of this node, for the error message.

    Raises:
        PlanError: it has not.
    """
    if not is_remote(out) and not (Path(out) / sentinel).exists():
        raise PlanError(
            f"--out: expected a folder shared by all nodes, got {out!r}, which {node} of the run cannot access; "
            "use a shared mount, or a URI such as s3://bucket/run"
        )


class ReporterStream(io.TextIOBase):
    """Text stream that sends lines to the driver."""

    def __init__(self, reporter: Any) -> None:
        self._reporter = reporter
        self._partial_line = ""

    def write(self, text: str) -> int:
        """Send the complete lines."""
        *lines, self._partial_line = (self._partial_line + text).split("\n")
        for line in lines:
            self._reporter.add_line.remote(line)
        return len(text)
