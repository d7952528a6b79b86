"""The stage that explains every image: predictions and class activation maps."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ....pipeline.errors import ModelError
from ....pipeline.jobs.fingerprint import fingerprint_of
from ....pipeline.jobs.stages import Batches, Inputs, Process, Source
from .audited_model import load_audited_model, match_audited_classes, model_facts, output_names
from .records import MAPS, SCHEMA

if TYPE_CHECKING:
    from .config import AuditConfig

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapStage:
    """Predictions and maps of all images of the audited split."""

    audit: AuditConfig

    name = MAPS
    needs = ()
    schema = SCHEMA

    def fingerprint(self) -> str:
        """Hash what determines the records: plan, model, classes, target of the maps, and versions."""
        from ...report.versions import versions
        from . import edges
        from .findings import FINDINGS_VERSION

        audit = self.audit
        outputs = output_names(audit)
        return fingerprint_of(
            [
                FINDINGS_VERSION,
                audit.plan.fingerprint(),
                model_facts(audit),
                None if audit.model is None else audit.model.model_dump(mode="json", exclude={"weights"}),
                [outputs.names, outputs.as_index, audit.class_map, audit.plan.load_index().classes],
                [
                    audit.split,
                    audit.method,
                    audit.target_layer,
                    audit.targets,
                    audit.untrained,
                    audit.precision,
                ],
                [edges.GRID, edges.NUM_DEPTHS, edges.STRIP, edges.SEGMENTS],
                versions(),
            ]
        )

    def source(self, inputs: Inputs) -> Source:  # noqa: ARG002
        """Return the audited split, in order and without augmentation."""
        return Batches(self.audit.plan, self.audit.view)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:  # noqa: ARG002
        """Load the model; yields a function that returns the records of a batch.

        Raises:
            ModelError: no such model, layer or device, or layers of the model are untrained.
            PlanError: ``class_map`` or ``explain`` has an unknown class.
        """
        from ...zoo.heads import num_outputs
        from ...zoo.weights_report import weights_report
        from .cells import CellSample
        from .image_columns import ImageColumns
        from .map_columns import MAX_LOGITS
        from .measure import CamExplainer

        audit = self.audit
        for note in audit.plan_warnings():
            _log.warning("%s", note)
        model = load_audited_model(audit)
        report = weights_report(model)
        untrained = report.untrained if audit.checkpoint is None or report.source != "none" else ()
        if untrained and audit.untrained == "refuse":
            few = ", ".join(untrained[:3]) + (f" and {len(untrained) - 3} more" if len(untrained) > 3 else "")
            raise ModelError(
                f"model: expected trained weights, got randomly initialised layers {few}, whose predictions are "
                "meaningless; train the model and audit its checkpoint, or write 'untrained: allow'"
            )
        count = num_outputs(model)
        match = match_audited_classes(audit, count)
        facts = {
            "num_outputs": count,
            "outputs": list(match.outputs) if count <= MAX_LOGITS else None,
            "untrained": list(untrained),
            "weights": report.as_dict()
            if report.source not in ("none", "unknown")
            else {"source": report.source},
        }
        with ExitStack() as stack:
            yield CamExplainer(
                model,
                audit.target_layer,
                match,
                stack,
                ImageColumns(audit.plan, audit.split),
                CellSample(audit.plan.seed, len(audit.plan.load_index().rows(audit.split))),
                method=audit.method,
                targets=audit.targets,
                seed=audit.plan.seed,
                precision=audit.precision,
                device=audit.device,
                facts=facts,
            )
