"""Recognises the results of Lightwell before output folders had a manifest, so that they stay usable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from ..pipeline.monitor.quarantine import QUARANTINE_NAME
from ..pipeline.outputs.folder import is_pattern
from .record_store import PARTS, PATTERN, read_part_metadata

COUNTS_NAME = "counts.json"
COUNTS = {"read", "used", "replaced", "skipped"}
ENTRY = {"key", "step", "reason", "epoch"}


def legacy_output_names(folder: Path, outputs: Sequence[str]) -> list[str]:
    """List the files in a folder without a manifest that a run of ours has written.

    Parts, counts, quarantine lists and checkpoints of ours are recognised by their content. Where there is one, the other
    fixed names among the outputs are ours too; files under a pattern are not, since nothing tells whose they are.

    Args:
        folder: the output folder.
        outputs: names and patterns that the run writes.
    """
    parts = [path for path in sorted(folder.glob(PATTERN)) if _is_part(path)]
    if not (
        parts
        or _is_counts(folder / COUNTS_NAME)
        or _is_quarantine(folder / QUARANTINE_NAME)
        or any(_is_checkpoint(path) for path in sorted(folder.glob("*.safetensors")))
    ):
        return []
    fixed = [name for name in outputs if not is_pattern(name)]
    return [*(f"{PARTS}/{path.name}" for path in parts), *fixed]


def _is_part(path: Path) -> bool:
    try:
        return not path.is_symlink() and "position" in read_part_metadata(pq.read_schema(path))
    except (pa.ArrowException, OSError, ValueError):
        return False


def _is_counts(path: Path) -> bool:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.keys() == COUNTS


def _is_quarantine(path: Path) -> bool:
    """Say whether the first line is an entry; a list without entries is empty."""
    try:
        with path.open("rb") as file:
            line = file.readline(1 << 20)
        found = json.loads(line) if line else dict.fromkeys(ENTRY)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.keys() >= ENTRY


def _is_checkpoint(path: Path) -> bool:
    try:
        with safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get("format") == "lightwell"
    except (OSError, SafetensorError):
        return False
