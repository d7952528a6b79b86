"""Finds the batch that ends the process of whoever makes it, such as one with a picture that a decoder trips over.

Ray says that a worker died again and again, not over what. So the batches that were under way are made once more, one
after another, by a process that makes nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .stream import Stage, count_up

PROBE_S = 120.0
"""Seconds that one batch may take in the search."""


class Probe:
    """One stage in an actor of its own, one batch at a time."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage.make(*stage.args)

    def run(self, table: Any) -> Any:
        """Take a block through the stage."""
        return self._stage(table)


def find_poison(stages: Sequence[Stage], first: int, end: int) -> int | None:
    """Return the first batch from ``first`` up to ``end`` that kills its process; None where none does."""
    import ray

    probes: list[Any] = [
        ray.remote(Probe)
        .options(num_cpus=stage.each.cpus, num_gpus=stage.each.gpus, max_restarts=0)
        .remote(stage)
        for stage in stages
    ]
    try:
        for number in range(first, end):
            (table,) = count_up(number, number + 1, 1)
            for probe in probes:
                table = ray.get(probe.run.remote(table), timeout=PROBE_S)
    except ray.exceptions.RayActorError:  # dead, or as good as: Ray knows only that its connection broke
        return number
    except ray.exceptions.RayError:  # no room for a probe, or another fault: the first error stands
        return None
    finally:
        for probe in probes:
            ray.kill(probe)
    return None
