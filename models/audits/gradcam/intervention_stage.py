"""The stage that tests suspects by changing their regions; see ``interventions``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ....pipeline.jobs.fingerprint import fingerprint_of
from ....pipeline.jobs.stages import Batches, Inputs, Process, Source
from ....pipeline.plan.plan import BatchOptions
from ....pipeline.plan.view import View
from ..findings.finding import read_findings
from .interventions import (
    INTERVENTION_SCHEMA,
    MAX_IMPUTED,
    MAX_SUSPECTS,
    Interventions,
    choose_suspects,
    make_pairs,
)
from .records import INTERVENTIONS, MAPS, SUSPECTS, maps_array
from .trust_stage import no_batches

if TYPE_CHECKING:
    from ....pipeline.plan.plan import Plan
    from .config import AuditConfig

PAIRS_PER_BATCH = 8
RULE_VERSION = 1
"""Incremented when equal suspects get other interventions."""


@dataclass(frozen=True)
class InterventionStage:
    """Probabilities of at most ``interventions`` pairs of images for each suspect, with its region changed."""

    audit: AuditConfig

    name = INTERVENTIONS
    needs = (MAPS, SUSPECTS)
    schema = INTERVENTION_SCHEMA

    def fingerprint(self) -> str:
        """Hash what determines the interventions, besides maps and suspects."""
        facts = [RULE_VERSION, MAX_IMPUTED, MAX_SUSPECTS, PAIRS_PER_BATCH]
        return fingerprint_of([self.audit.plan.seed, self.audit.interventions, *facts])

    def source(self, inputs: Inputs) -> Source:
        """Return the images of the pairs, side by side."""
        pairs = make_pairs(choose_suspects(read_findings(inputs[SUSPECTS])), self.audit.interventions)
        keys = tuple(key for pair in pairs for key in pair.keys)
        return Batches(paired_plan(self.audit.plan), View(split=self.audit.split, keys=keys))

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:
        """Load the model; yields a function that tests the pairs of a batch.

        Raises:
            ModelError: no such model or device.
        """
        from .opened_model import open_audit_model

        suspects = choose_suspects(read_findings(inputs[SUSPECTS]))
        pairs = make_pairs(suspects, self.audit.interventions)
        if not pairs:
            yield no_batches
            return
        own, records = {pair.own for pair in pairs}, inputs[MAPS]
        shown = [key in own for key in records["key"].to_pylist()]
        chosen = records.filter(shown)
        maps = dict(zip(chosen["key"].to_pylist(), maps_array(chosen, rectified=True), strict=True))
        with open_audit_model(self.audit) as model:
            yield Interventions(model, suspects, pairs, maps, PAIRS_PER_BATCH, self.audit.plan.seed)


def paired_plan(plan: Plan) -> Plan:
    """Return a plan whose batches hold whole pairs, each image at its place: nothing is skipped."""
    errors = plan.errors
    if errors.on_error == "skip":
        errors = errors.model_copy(update={"on_error": "replace"})
    return plan.model_copy(update={"batch": BatchOptions(size=2 * PAIRS_PER_BATCH), "errors": errors})
