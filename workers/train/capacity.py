"""Detects when the ranks of a run no longer fit in the cluster; Ray Train waits silently."""

from __future__ import annotations

from collections.abc import Sequence

from ...pipeline.errors import PlanError
from ..ray.cluster import NodeResources, WorkerGroup, check_capacity, describe_nodes


class CapacityMonitor:
    """Reports changes in whether the ranks of a run fit."""

    def __init__(self, group: WorkerGroup) -> None:
        self._worker_group = group
        self._is_waiting = False

    def update(self, nodes: Sequence[NodeResources]) -> str | None:
        """Check the current nodes; returns a line for the console if the state has changed."""
        before, self._is_waiting = self._is_waiting, not self._fits(nodes)
        if self._is_waiting == before:
            return None
        if not self._is_waiting:
            return "resources are available again: the ranks resume from the last checkpoint"
        return (
            f"waiting for resources: {self._worker_group.num_workers} ranks need {self._worker_group.per_worker} each, and the cluster has "
            f"{describe_nodes(nodes) or 'no node'} left; add nodes, or stop and run the same command with fewer --workers"
        )

    def _fits(self, nodes: Sequence[NodeResources]) -> bool:
        try:
            check_capacity([self._worker_group], nodes)
        except PlanError:
            return False
        return True
