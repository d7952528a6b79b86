"""Finds the poison batch that kills its worker process, such as one with an image that crashes a decoder.

Ray reports that a worker died repeatedly, but not at which batch. So the batches that were in progress are made again, one
after another, in a separate process.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any

from ...pipeline.errors import WorkerDiedError
from ...pipeline.monitor.quarantine import NUM_NAMED
from ...pipeline.runtime.open_view import OpenView
from .cluster import find_node
from .stream import Stage, number_blocks

START_S = 60.0
"""Timeout in seconds for starting the probe processes. GPUs become free once Ray has given up all tasks of the workers that
held them, which takes about 30 s."""
PROBE_S = 120.0
"""Timeout in seconds for one batch of the search."""


class Probe:
    """Actor that runs one stage, one batch at a time."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage.actor_class(*stage.args)

    def is_open(self) -> bool:
        """Return True once the stage is open."""
        return True

    def run(self, table: Any) -> Any:
        """Process a block."""
        return self._stage(table)


def clear_tracebacks(error: BaseException) -> None:
    """Clear the local variables of all frames in the tracebacks of an error and its causes; line numbers are kept.

    They hold references to Ray Data's actor pool, which would keep its workers, dead or not, and their resources.
    """
    visited: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        exception = pending.pop()
        if exception is not None and id(exception) not in visited:
            visited.add(id(exception))
            traceback.clear_frames(exception.__traceback__)
            pending += [exception.__cause__, exception.__context__]


def poison_error(opened: OpenView, number: int, num_deaths: int) -> WorkerDiedError:
    """Build the error for a batch that kills its worker process."""
    spec = opened.schedule.batch(number)
    keys = opened.index.table["key"].take(spec.rows).to_pylist()
    more = f" and {len(keys) - NUM_NAMED:,} more" if len(keys) > NUM_NAMED else ""
    return WorkerDiedError(
        f"epoch {spec.epoch}, step {spec.step}: expected this batch, got a worker process that died {num_deaths} times "
        f"while making it; one of its images ({', '.join(map(repr, keys[:NUM_NAMED]))}{more}) crashes a decoder or the "
        "job's code: remove it from the index"
    )


def find_poison_batch(stages: Sequence[Stage], first: int, end: int) -> int | None:
    """Return the first batch from ``first`` up to ``end`` that kills its process; None if none does.

    Args:
        stages: the stages of a batch; their former workers must have been released.
        first: number of the first batch to try.
        end: number after the last one.
    """
    import ray

    number = None
    probes = [_start(stage) for stage in stages]
    try:
        ray.get([probe.is_open.remote() for probe in probes], timeout=START_S)
        for number in range(first, end):
            (table,) = number_blocks(number, number + 1, 1)
            for probe in probes:
                table = ray.get(probe.run.remote(table), timeout=PROBE_S)
    except ray.exceptions.RayActorError:  # dead, or disconnected
        return number  # None if a stage cannot even be opened
    except ray.exceptions.RayError:  # no capacity, another fault or a timeout: keep the original error
        return None
    finally:
        for probe in probes:
            ray.kill(probe)
    return None


def _start(stage: Stage) -> Any:
    """Start a probe. It reserves no CPUs, since those of the dead workers are released late."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = find_node(stage.per_worker)
    return (
        ray.remote(Probe)
        .options(
            num_cpus=0,
            num_gpus=stage.per_worker.gpus or None,
            max_restarts=0,
            # A node without CPUs, such as a head node, may have no access to the images.
            scheduling_strategy=node and NodeAffinitySchedulingStrategy(node, soft=True),
        )
        .remote(stage)
    )
