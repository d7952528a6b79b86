"""The plan of a checkpoint, on other data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...pipeline.config.safe_yaml import read_text_file
from ...pipeline.errors import ModelError, RequestError
from ...pipeline.plan.plan import Plan
from ..report.run_facts import RUN_NAME
from ..training.checkpoint import read_metadata


def trained_index(checkpoint: Path) -> Path:
    """Return the index that a checkpoint was trained on, from ``run.json`` beside it.

    Raises:
        RequestError: there is no such file, or the index is no longer there.
    """
    path = checkpoint.parent / RUN_NAME
    try:
        index = Path(json.loads(read_text_file(path))["index"])
        if index.is_file():
            return index
        found = f"one that names {str(index)!r}, which does not exist"
    except (KeyError, TypeError, ValueError, RecursionError):  # a PlanError for a file that cannot be read
        found = "none that can be read"
    raise RequestError(
        f"evaluate: expected a plan, an index or a folder, or a {RUN_NAME} beside {checkpoint} that names the index, got {found}; "
        "name the data behind the checkpoint"
    )


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
