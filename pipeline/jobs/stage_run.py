"""Protocols of running stages, and of engines that run them in their workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from .contracts import Stream

if TYPE_CHECKING:
    import pyarrow as pa

    from .stages import Inputs, Stage


@dataclass(frozen=True, slots=True)
class StageRecords:
    """Records of a stage for one item of its source."""

    records: pa.RecordBatch | None
    """None if no image of the item could be used."""
    num_read: int
    """Images of the item, without padding."""
    num_used: int
    """Of these, those that were not replaced by another image."""
    num_rows: int = 0
    """Rows of the item, if it is a table."""


class StageRun(Stream[StageRecords], Protocol):
    """Stream of a running stage."""

    def __enter__(self) -> StageRun: ...


@runtime_checkable
class StageEngine(Protocol):
    """An engine that runs stages in its workers, beside the batches or on their device."""

    def open_stage(self, stage: Stage, inputs: Inputs, position: Mapping[str, Any] | None = None) -> StageRun:
        """Open a run of a stage over its source, from a position on if one is given; raises as ``Engine.feed`` does.

        Args:
            stage: the stage.
            inputs: records of the stages that it needs.
            position: where an earlier run stopped.
        """
        ...
