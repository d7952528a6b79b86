"""Grad-CAM audit job: predictions and class activation maps of a model for every image of a split.

A job file::

    job: gradcam
    plan: plan.yaml
    checkpoint: train/best.safetensors      # or  model: {name: resnet18}
    split: test

``lightwell audit audit.yaml --out audit`` writes records.parquet (one row per image), findings.json and report.html.
``lightwell report audit`` writes the last two again, after a change of the title, say, without images and model.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ....pipeline.config.checked_model import CheckedModel
from ....pipeline.config.path_fields import MayBePath
from ....pipeline.errors import did_you_mean
from ....pipeline.plan.plan import Plan
from ....pipeline.plan.view import View
from ...zoo.build import ModelSpec
from .classes import IMAGENET, INDEX
from .findings_stage import FindingsStage, Summary
from .map_stage import MapStage
from .picture_stage import PictureStage
from .records import FINDINGS, MAPS, PICTURES, RECORDS_NAME

if TYPE_CHECKING:
    from ....pipeline.jobs.contracts import Context
    from ....pipeline.jobs.stages import Inputs, Stage


_log = logging.getLogger(__name__)


class GradCamAudit(CheckedModel):
    """Explain every prediction of a split with Grad-CAM (Selvaraju et al., ICCV 2017)."""

    plan: Plan
    model: ModelSpec | None = None
    """A classifier with pretrained weights; give this or a checkpoint."""
    checkpoint: Path | None = None
    """A checkpoint of ``lightwell train``."""
    split: str | None = "test"
    """None audits all images."""
    target_layer: str | None = None
    """Dotted name of the target layer; None uses the last layer with a spatial map."""
    training_metrics: Path | None = None
    """``metrics.jsonl`` for the training curves; None uses the one next to the checkpoint, if any."""
    class_names: Annotated[str | tuple[str, ...] | None, MayBePath((".txt", ".json"))] = None
    """Names of the model's outputs: a list, a file (JSON list, or text with one name per line), ``imagenet`` for the
    1,000 classes of ImageNet models, or ``index`` for outputs in the order of the index's classes. None uses the names
    stored with the checkpoint or the pretrained weights."""
    class_map: dict[str, str | int] | None = None
    """Maps classes of the index to names or numbers of outputs, where the names differ."""
    untrained: Literal["refuse", "allow"] = "refuse"
    """``allow`` audits a model with randomly initialised layers, whose predictions are meaningless."""
    explain: str = "predicted"
    """Target class of the maps: ``predicted``, ``label`` or the name of a class."""
    gallery: int = Field(default=27, ge=0, le=200)
    """Maximum number of images in the report."""
    title: str = "Grad-CAM audit"
    credit: str = ""
    """Source and licence of the images, shown in the report."""
    device: str = "auto"
    """torch device of the model; ``auto`` uses a GPU if available."""

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        given = [name for name in ("model", "checkpoint") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of model and checkpoint, got {' and '.join(given) or 'neither'}; "
                "give checkpoint: PATH for your own model, or model: {name: NAME} for a pretrained one"
            )
        words = (IMAGENET, INDEX)
        names = self.class_names
        if isinstance(names, str) and names not in words and not names.endswith((".txt", ".json")):
            raise ValueError(
                f"class_names: expected a list of names, a .txt or .json file, {' or '.join(words)}, got {names!r}; "
                f"{did_you_mean(names, words) or 'correct it'}"
            )
        return self

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Maps of all images, findings from the maps, and the images that the report shows."""
        return MapStage(self), FindingsStage(self), PictureStage(self)

    @property
    def view(self) -> View:
        """View of the audited split, in order and without augmentation."""
        return View(split=self.split)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output files."""
        return ("report.html", "findings.json", RECORDS_NAME)

    def plan_warnings(self) -> tuple[str, ...]:
        """Return warnings where the plan's preprocessing differs from that of the weights, with YAML lines that fix it.

        Raises:
            ModelError: no such model, or the checkpoint cannot be read.
        """
        from ...zoo.plan_checks import data_warnings, trained_plan_warnings

        if self.model is not None:
            return data_warnings(self.model, self.plan)
        from ...training.checkpoint import read_metadata

        assert self.checkpoint is not None
        return trained_plan_warnings(read_metadata(self.checkpoint)[0].job, self.plan)

    def finish(self, records: Inputs, context: Context) -> Mapping[str, Any]:
        """Write findings.json, report.html and records.parquet; return the findings.

        Raises:
            OutputError: a file cannot be written.
        """
        from .findings import write_findings
        from .gallery import build_gallery, choose_rows
        from .picture_stage import read_pictures
        from .records import read_predictions
        from .report import Report

        summary = Summary.load(records[FINDINGS])
        findings = {"title": self.title, **summary.findings, **self._run_facts(context)}
        for note in summary.findings["notes"]:
            if note not in summary.plan_notes:  # those were logged when the model was loaded
                _log.log(logging.ERROR if note in summary.void_notes else logging.WARNING, "%s", note)
        maps = records[MAPS]
        chosen = choose_rows(read_predictions(maps), self.gallery)
        report = Report(
            title=self.title,
            findings=findings,
            records=maps,
            gallery=build_gallery(maps, read_pictures(records[PICTURES]), chosen, summary.names),
            quarantine=context.quarantine,
            names=summary.names,
            curves=summary.curves,
            credit=self.credit,
        )
        context.export_records(MAPS, RECORDS_NAME)
        report.write(context.out / "report.html")
        write_findings(findings, context.out / "findings.json")
        return findings

    def _run_facts(self, context: Context) -> dict[str, Any]:
        """Return the findings that depend on the run and the report, not on the maps."""
        from collections import Counter

        return {
            "counts": dict(context.counts),
            "num_quarantined": len({entry["key"] for entry in context.quarantine}),
            "quarantine_steps": dict(Counter(str(entry["step"]) for entry in context.quarantine)),
            "credit": self.credit,
        }
