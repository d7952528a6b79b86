"""Training curves of a ``metrics.jsonl``, by chart."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from ...pipeline.errors import PlanError

Curves = dict[str, list[tuple[float, float]]]
"""Points (epoch, value) by curve name."""


def read_curves(path: Path) -> dict[str, Curves]:
    """Read a ``metrics.jsonl``; returns chart name -> curve name -> (epoch, value) points.

    Losses share one chart and accuracies another; a metric without numbers is omitted.

    Raises:
        PlanError: the file is missing or a line of it is not JSON.
    """
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise PlanError(
            f"training_metrics: expected a readable metrics.jsonl, got {path} ({error}); "
            "give the file next to the checkpoint, or remove the key"
        ) from error
    charts: dict[str, Curves] = {}
    for number, row in enumerate(rows):
        epoch = float(row.get("epoch", number))
        split = f"{row['split']} " if isinstance(row.get("split"), str) else ""
        for name, value in flatten(row, split):
            chart = chart_of(name)
            if chart and math.isfinite(value):
                charts.setdefault(chart, {}).setdefault(name, []).append((epoch, value))
    return charts


def flatten(row: Mapping[str, object], prefix: str = "") -> list[tuple[str, float]]:
    """Return the numbers of a nested mapping with names such as ``train loss``."""
    found: list[tuple[str, float]] = []
    for name, value in row.items():
        label = f"{prefix}{name}".replace("_", " ").replace("/", " ")
        if isinstance(value, Mapping):
            found += flatten(value, f"{label} ")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((label, float(value)))
    return found


def chart_of(name: str) -> str | None:
    """Return the chart of a metric; None if it is not shown."""
    if "loss" in name:
        return "Loss"
    if any(word in name for word in ("accuracy", "auroc", "top1")):
        return "Accuracy"
    return "Metrics" if {"map", "f1", "miou", "dice"} & set(name.split()) else None
