"""The plan of a checkpoint, on other data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...pipeline.errors import ModelError
from ...pipeline.plan.plan import Plan
from ..training.checkpoint import read_metadata


def plan_of(
    checkpoint: Path, index: Path, *, batch_size: int, allow_import: Sequence[str] = (), **keys: Any
) -> Plan:
    """Build the plan that prepares other images as the checkpoint's training did for evaluation.

    Args:
        checkpoint: a checkpoint of ``lightwell train``.
        index: path of the index of the images.
        batch_size: images per batch.
        allow_import: modules that its transforms may be imported from.
        keys: further keys of the plan.

    Raises:
        ModelError: the file is no checkpoint, or has no plan.
        PlanError: a transform does not exist or is not allowed.
    """
    metadata, _ = read_metadata(checkpoint)
    if metadata.plan is None:
        raise ModelError(
            f"checkpoint: expected one with the transforms of its plan, got {checkpoint} without; train again, or give a plan"
        )
    return metadata.plan.to_plan(index, batch_size=batch_size, allow_import=allow_import, **keys)
