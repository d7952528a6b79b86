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
from typing import TYPE_CHECKING, Any

from ..calibration.stages import (
    CALIBRATION,
    EXPERIMENTS,
    CalibrationStage,
    ExperimentImageStage,
    ExperimentStage,
    summarize_calibration,
)
from .config import AuditConfig
from .findings_stage import FindingsStage
from .intervention_stage import InterventionStage
from .map_stage import MapStage
from .opinion_stage import OpinionStage, summarize_opinions
from .overlay_stage import OverlayStage
from .picture_stage import PictureStage
from .records import (
    FINDINGS,
    FINDINGS_NAME,
    FIXES_NAME,
    MAPS,
    OPINIONS,
    OPINIONS_NAME,
    PICTURES,
    RECORDS_NAME,
    SUMMARY,
    SUSPECTS,
)
from .summary_stage import Summary, SummaryStage
from .suspect_stage import SuspectStage
from .trust_stage import TrustStage

if TYPE_CHECKING:
    from ....pipeline.jobs.contracts import Context
    from ....pipeline.jobs.stages import Inputs, Stage


_log = logging.getLogger(__name__)


class GradCamAudit(AuditConfig):
    """Explain every prediction of a split with Grad-CAM (Selvaraju et al., ICCV 2017)."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Maps, checks of the maps, candidates and their tests, findings, metrics, and the images that the report shows."""
        stages = (
            MapStage(self),
            TrustStage(self),
            SuspectStage(self),
            InterventionStage(self),
            FindingsStage(self),
            SummaryStage(self),
            PictureStage(self),
        )
        opinions = (OpinionStage(self),) if self.second_opinions else ()
        calibration = (
            (ExperimentStage(self), ExperimentImageStage(self), CalibrationStage(self))
            if self.calibrate
            else ()
        )
        return (
            *stages,
            *opinions,
            *calibration,
            *((OverlayStage(self, self.overlays),) if self.overlays else ()),
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output files."""
        opinions = (OPINIONS_NAME,) if self.second_opinions else ()
        overlays = (f"{self.overlays}/*.png", f"{self.overlays}/*.npy") if self.overlays else ()
        return ("report.html", "findings.json", FINDINGS_NAME, FIXES_NAME, RECORDS_NAME, *opinions, *overlays)

    def finish(self, records: Inputs, context: Context) -> Mapping[str, Any]:
        """Write findings.json, findings.parquet, fixes.csv, report.html and records.parquet; return the findings.

        Raises:
            OutputError: a file cannot be written.
        """
        from ..dataset.fix_list import write_fixes
        from ..findings.finding import read_findings
        from .findings import write_findings
        from .fixes import collect_fixes
        from .picture_stage import read_pictures
        from .report.page import Report

        summary = Summary.load(records[SUMMARY])
        found = read_findings(records[FINDINGS])
        findings = {
            "title": self.title,
            "findings": [finding.to_dict() for finding in found],
            **summary.findings,
            **self._run_facts(context),
        }
        for note in summary.findings["notes"]:
            if note not in summary.plan_notes:  # those were logged when the model was loaded
                _log.log(logging.ERROR if note in summary.void_notes else logging.WARNING, "%s", note)
        if CALIBRATION in records:
            findings["detection_limit"] = summarize_calibration(
                records[EXPERIMENTS], records[CALIBRATION], summary.names, summary.findings["seed"]
            )
        maps, fixes = records[MAPS], collect_fixes(records[SUSPECTS], found)
        report = Report(
            title=self.title,
            findings=findings,
            records=maps,
            found=found,
            pictures=read_pictures(records[PICTURES]),
            num_gallery=self.gallery,
            quarantine=context.quarantine,
            names=summary.names,
            curves=summary.curves,
            credit=self.credit,
            suggested={(fix.finding_id, fix.key): fix.value for fix in fixes if fix.value},
            opinions=records.get(OPINIONS),
        )
        if OPINIONS in records:
            findings["second_opinions"] = summarize_opinions(records[OPINIONS])
            context.export_records(OPINIONS, OPINIONS_NAME)
        context.export_records(MAPS, RECORDS_NAME)
        context.export_records(FINDINGS, FINDINGS_NAME)
        write_fixes(fixes, context.out / FIXES_NAME)
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
