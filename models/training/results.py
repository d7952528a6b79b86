"""Files of a finished training besides weights and metrics: figures, tables by class, and facts about the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...pipeline.atomic_io import write_json
from ..report.curves import read_curves
from ..report.figures import write_confusion, write_curves, write_reliability
from ..report.run_facts import RUN_NAME, run_facts
from .evaluation import EvalResult
from .per_class import per_class_table
from .scores import SplitScores
from .spec import TrainSpec
from .tasks.classification import ClassificationTask
from .tasks.task import Task

CURVES_NAME = "curves.png"
CONFUSION_NAME = "confusion.png"
RELIABILITY_NAME = "reliability.png"
FILES = (CURVES_NAME, CONFUSION_NAME, RELIABILITY_NAME, RUN_NAME)


def format_result(result: EvalResult, task: Task) -> str:
    """Format loss and metrics as one line, with the reason for each undefined metric."""
    values = {"loss": result.loss, **result.metrics.as_dict()}
    reasons = {name: f"undefined ({reason})" for name, reason in result.metrics.notes.items()}
    shown = {
        name: reasons.get(name, "undefined") if values.get(name) is None else f"{values[name]:.4f}"
        for name in ("loss", *task.metric_names)
    }
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items())


def write_training_curves(metrics: Path, out: Path) -> None:
    """Draw losses and metrics by epoch into ``curves.png``.

    Args:
        metrics: ``metrics.jsonl``; without numbers nothing is drawn.
        out: the output folder.

    Raises:
        OutputError: the file cannot be written.
    """
    charts = read_curves(metrics) if metrics.exists() else {}
    if charts:
        write_curves(out / CURVES_NAME, charts)


def describe_test(
    details: dict[str, Any], task: Task, scores: SplitScores | None, temperature: float, out: Path
) -> dict[str, Any]:
    """Draw the figures of a tested model, and return the tables of a classifier for ``result.json``.

    Args:
        details: results of the test, with a ``confusion`` matrix of images or pixels if the task has one.
        task: the task.
        scores: logits of the test split; None if they were not recorded.
        temperature: from the checkpoint.
        out: the output folder.

    Returns:
        ``per_class``, and ``calibration`` with the temperature, before and after its use; empty for other tasks.

    Raises:
        OutputError: a file cannot be written.
    """
    confusion = np.asarray(details.get("confusion", 0))
    if confusion.shape == (len(task.classes),) * 2:
        write_confusion(out / CONFUSION_NAME, confusion, task.classes)
    if not isinstance(task, ClassificationTask):
        return {}
    tables: dict[str, Any] = {"per_class": per_class_table(confusion, task.classes)}
    before = None if scores is None else scores.calibration(1.0)
    after = None if scores is None else scores.calibration(temperature)
    if before is None or after is None:
        return tables
    diagrams = {"as trained": before, f"temperature {temperature:.3g}": after}
    write_reliability(out / RELIABILITY_NAME, diagrams if temperature != 1 else {"as trained": before})
    return tables | {"calibration": {"temperature": temperature, "before": before, "after": after}}


def write_run(out: Path, spec: TrainSpec) -> None:
    """Write ``run.json``: command, versions, machine, index, seed and the keys that determine the result.

    Raises:
        OutputError: the file cannot be written.
    """
    own = {"index": str(spec.plan.index.absolute()), "seed": spec.plan.seed, "job": spec.result_config()}
    write_json(out / RUN_NAME, run_facts() | own)
