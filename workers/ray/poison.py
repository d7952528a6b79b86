"""Finds the batch that ends the process of whoever makes it, such as one with a picture that a decoder trips over.

Ray says that a worker died again and again, not over what. So the batches that were under way are made once more, one
after another, by a process that makes nothing else.
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
"""Seconds that the processes for the search may take to start. GPUs are free once Ray has given up all tasks of the workers
that held them, which takes half a minute."""
PROBE_S = 120.0
"""Seconds that one batch may take in the search."""


class Probe:
    """One stage in an actor of its own, one batch at a time."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage.actor_class(*stage.args)

    def is_open(self) -> bool:
        """Say that the stage is open."""
        return True

    def run(self, table: Any) -> Any:
        """Take a block through the stage."""
        return self._stage(table)


def clear_tracebacks(error: BaseException) -> None:
    """Empty the frames that an error and its causes came through; which lines they were stays known.

    Ray Data's pool is among what they hold, and a pool that is held keeps its workers, dead or not, and their room.
    """
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            left += [one.__cause__, one.__context__]


def poison_error(opened: OpenView, number: int, num_deaths: int) -> WorkerDiedError:
    """Say which batch ends the process of whoever makes it."""
    spec = opened.schedule.batch(number)
    keys = opened.index.table["key"].take(spec.rows).to_pylist()
    more = f" and {len(keys) - NUM_NAMED:,} more" if len(keys) > NUM_NAMED else ""
    return WorkerDiedError(
        f"epoch {spec.epoch}, step {spec.step}: expected this batch, got a worker's process that died over it every "
        f"time, {num_deaths} times in all; one of its images "
        f"({', '.join(map(repr, keys[:NUM_NAMED]))}{more}) ends a decoder or the job's code: take it out of the index"
    )


def find_poison_batch(stages: Sequence[Stage], first: int, end: int) -> int | None:
    """Return the first batch from ``first`` up to ``end`` that kills its process; None where none does.

    Args:
        stages: what the batches go through; of the workers that they had before, none may be held any more.
        first: number of the first batch to look at.
        end: number behind the last.
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
    except ray.exceptions.RayActorError:  # dead, or as good as: Ray knows only that its connection broke
        return number  # none where a stage cannot even be opened
    except ray.exceptions.RayError:  # no room, another fault, or too slow a batch: the first error stands
        return None
    finally:
        for probe in probes:
            ray.kill(probe)
    return None


def _start(stage: Stage) -> Any:
    """Start a probe. It holds no CPUs: those of the dead workers are given back late, and others may want them."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = find_node(stage.per_worker)
    return (
        ray.remote(Probe)
        .options(
            num_cpus=0,
            num_gpus=stage.per_worker.gpus or None,
            max_restarts=0,
            # A node without CPUs, such as a head, may see no images.
            scheduling_strategy=node and NodeAffinitySchedulingStrategy(node, soft=True),
        )
        .remote(stage)
    )
