"""Notices when the ranks of a run do not fit in the cluster any more: Ray Train waits for room, and says nothing."""

from __future__ import annotations

from collections.abc import Sequence

from ...pipeline.errors import PlanError
from ..ray.cluster import NodeResources, WorkerGroup, check_capacity, describe_nodes


class CapacityMonitor:
    """Tells news of the room for some ranks, and nothing while all is as before."""

    def __init__(self, group: WorkerGroup) -> None:
        self._worker_group = group
        self._waits = False

    def update(self, nodes: Sequence[NodeResources]) -> str | None:
        """Look at the nodes that there are now; returns a line for the console where something has changed."""
        before, self._waits = self._waits, not self._fits(nodes)
        if self._waits == before:
            return None
        if not self._waits:
            return "there is room again: the ranks go on from the last checkpoint"
        return (
            f"waiting for room: {self._worker_group.num_workers} ranks of {self._worker_group.per_worker} each are expected, and the cluster has "
            f"{describe_nodes(nodes) or 'no node'} left; add nodes, or stop and run the same command with fewer --workers"
        )

    def _fits(self, nodes: Sequence[NodeResources]) -> bool:
        try:
            check_capacity([self._worker_group], nodes)
        except PlanError:
            return False
        return True
