"""What one worker of Ray Train does: it opens the feed of its own rank in its own process and runs the job on it."""

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
class Order:
    """What every rank is told. Pickled by value."""

    job: TrainingJob
    out: str
    desk: Any
    """Handle of a ``Desk``."""
    mark: str
    """Name of a file that the driver has put into ``out``, so that a rank knows that it sees the same folder."""
    num_threads: int
    memory_bytes: int
    """Of one rank; 0 means a quarter of its machine, shared by the ranks that are there."""


def run_rank(config: dict[str, Any]) -> None:
    """Run one rank to its end, as the ``Order`` under ``order`` says.

    An error of ours is final and told at the desk. After any other Ray Train starts all ranks anew, which go on from the
    last checkpoint.
    """
    import ray

    order: Order = config["order"]
    try:
        run_job(order)
    except LightwellError as error:
        ray.get(order.desk.fail.remote(error))
        raise


def run_job(order: Order) -> None:
    """Run the job on this rank's part of its batches."""
    import ray
    import ray.train
    import torch

    context = ray.train.get_context()
    leads = context.get_world_rank() == 0
    torch.set_num_threads(order.num_threads)
    check_sees(order, context.get_node_rank())
    memory = order.memory_bytes or default_memory_bytes() // context.get_local_world_size()
    engine = LocalEngine(num_threads=order.num_threads, memory_bytes=memory)
    console = LineConsole(cast("TextIO", DeskStream(order.desk))) if leads else SilentConsole()
    console.say(f"training on {context.get_world_size()} ranks, {order.num_threads} threads each")
    metrics = run_training_job(order.job, engine, order.out, console, lock=False)  # the driver holds it
    if leads:
        ray.get(order.desk.finish.remote(metrics))


def check_sees(order: Order, node: int) -> None:
    """Check that this rank sees the folder that the driver writes to."""
    if not is_remote(order.out) and not (Path(order.out) / order.mark).exists():
        raise PlanError(
            f"--out: expected a folder that all nodes share, got {order.out!r}, which node {node} of the run does not see; "
            "give a shared mount, or a URI such as s3://bucket/run"
        )


class DeskStream(io.TextIOBase):
    """Sends what is written, line by line, to the driver."""

    def __init__(self, desk: Any) -> None:
        self._desk = desk
        self._begun = ""

    def write(self, text: str) -> int:
        """Send the lines that are whole."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._desk.say.remote(line)
        return len(text)
