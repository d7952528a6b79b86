"""Notices when the ranks of a run do not fit in the cluster any more: Ray Train waits for room, and says nothing."""

from __future__ import annotations

from collections.abc import Sequence

from ...pipeline.errors import PlanError
from ..ray.cluster import Crew, NodeRoom, check_room, told_of


class RoomWatch:
    """Tells news of the room for some ranks, and nothing while all is as before."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._waits = False

    def look(self, nodes: Sequence[NodeRoom]) -> str | None:
        """Look at the nodes that there are now; returns a line for the console where something has changed."""
        before, self._waits = self._waits, not self._fits(nodes)
        if self._waits == before:
            return None
        if not self._waits:
            return "there is room again: the ranks go on from the last checkpoint"
        return (
            f"waiting for room: {self._crew.num_workers} ranks of {self._crew.each} each are expected, and the cluster has "
            f"{told_of(nodes) or 'no node'} left; add nodes, or stop and run the same command with fewer --workers"
        )

    def _fits(self, nodes: Sequence[NodeRoom]) -> bool:
        try:
            check_room([self._crew], nodes)
        except PlanError:
            return False
        return True
