"""Results of a finished training: calibration, tables by class, figures and facts about the run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...pipeline.atomic_io import write_json
from ..report.curves import read_curves
from ..report.figures import write_confusion, write_curves, write_reliability
from ..report.run_facts import run_facts
from ..zoo.forward import eval_mode
from .calibration import compute_calibration, fit_temperature
from .checkpoint import read_metadata, save_checkpoint
from .distributed.context import DistributedContext
from .loop import compute_logits
from .train_batch import TrainBatch, gather_slices

CURVES_NAME = "curves.png"
CONFUSION_NAME = "confusion.png"
RELIABILITY_NAME = "reliability.png"
RUN_NAME = "run.json"
FIGURES = (CURVES_NAME, CONFUSION_NAME, RELIABILITY_NAME)


@dataclass(frozen=True)
class SplitScores:
    """Logits and labels of a whole split."""

    logits: np.ndarray
    """float64, shape (N, classes)."""
    labels: np.ndarray
    """int64, shape (N,); -1 for unlabelled and replaced images."""

    @classmethod
    def collect(
        cls, module: torch.nn.Module, batches: Iterable[TrainBatch], dist: DistributedContext
    ) -> SplitScores:
        """Score a split in eval mode; each rank passes its slices, and all ranks return the whole split."""
        slices = []
        with eval_mode(module), torch.inference_mode():
            for batch in batches:
                scores = compute_logits(module, batch.inputs)
                slices.append(replace(batch, inputs=scores).cpu())
            gathered = gather_slices(slices, dist)
        labels = gathered.labels.masked_fill(gathered.replaced, -1)
        return cls(gathered.inputs.double().numpy(), labels.numpy())

    def calibration(self, temperature: float) -> dict[str, Any] | None:
        """Return calibration of the probabilities at a temperature; None without labelled images."""
        scaled = torch.from_numpy(self.logits) / temperature
        found = compute_calibration(scaled.softmax(dim=1).numpy(), self.labels)
        return None if found is None else found.as_dict()


def calibrate(best: Path, model: torch.nn.Module, validation: SplitScores) -> float:
    """Fit the temperature on the validation split and store it in the checkpoint of the best weights.

    Args:
        best: the checkpoint, whose weights ``model`` has.
        model: the network.
        validation: its scores.

    Returns:
        The temperature; labels and their order are the same at any.
    """
    temperature = fit_temperature(validation.logits, validation.labels)
    metadata, _ = read_metadata(best)
    if metadata.temperature != temperature:
        save_checkpoint(best, model, replace(metadata, temperature=temperature))
    return temperature


def write_figures(
    out: Path,
    metrics: Path,
    confusion: np.ndarray,
    classes: Sequence[str],
    scores: SplitScores,
    temperature: float,
) -> None:
    """Write training curves, confusion matrix and reliability diagrams before and after calibration.

    Raises:
        OutputError: a file cannot be written.
    """
    charts = read_curves(metrics) if metrics.exists() else {}
    if charts:
        write_curves(out / CURVES_NAME, charts)
    write_confusion(out / CONFUSION_NAME, confusion, classes)
    plain = scores.calibration(1.0)
    if plain is not None:
        diagrams = {"as trained": plain}
        if temperature != 1:
            diagrams |= {f"temperature {temperature:.3g}": scores.calibration(temperature) or plain}
        write_reliability(out / RELIABILITY_NAME, diagrams)


def write_run(out: Path, facts: dict[str, Any]) -> None:
    """Write ``run.json``: command, versions, machine, and the given facts.

    Raises:
        OutputError: the file cannot be written.
    """
    write_json(out / RUN_NAME, run_facts() | facts)
