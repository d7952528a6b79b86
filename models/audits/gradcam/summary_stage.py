"""The stage that computes metrics from the maps, with all facts that the report shows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from ....pipeline.errors import PlanError
from ....pipeline.jobs.fingerprint import fingerprint_of
from ....pipeline.jobs.stages import Inputs, Process, Rows, Source
from ...explain.measures.regions import uniform_shares
from ...report.curves import Curves, read_curves
from .audited_model import match_audited_classes, model_facts
from .classes import ClassMatch
from .dataset_measures import measures_fingerprint, num_unmatched
from .findings import FINDINGS_VERSION
from .records import MAPS, SUMMARY, TRUST, map_size
from .trust import judge

if TYPE_CHECKING:
    from .config import AuditConfig

SUMMARY_SCHEMA = pa.schema({"summary": pa.string()})
"""One row: a `Summary` as JSON."""


@dataclass(frozen=True)
class Summary:
    """Findings of an audit and what its report needs besides, so that neither index nor model is needed again."""

    findings: Mapping[str, Any]
    names: Sequence[str]
    """Names of all classes by number."""
    plan_notes: Sequence[str]
    """Of the notes, those on plan and model."""
    void_notes: Sequence[str]
    """Of the notes, those that make the findings meaningless."""
    curves: Mapping[str, Curves]
    """Training curves: chart name -> curve name -> (epoch, value)."""

    @classmethod
    def load(cls, records: pa.Table) -> Self:
        """Read the summary from the records of the stage."""
        return cls(**json.loads(records["summary"][0].as_py()))

    def dump(self) -> pa.RecordBatch:
        """Return the summary as the record of the stage."""
        return pa.record_batch({"summary": [json.dumps(asdict(self))]}, schema=SUMMARY_SCHEMA)


@dataclass(frozen=True)
class SummaryStage:
    """Metrics of all images and facts about model, data and run."""

    audit: AuditConfig

    name = SUMMARY
    needs = (MAPS, TRUST)
    schema = SUMMARY_SCHEMA

    def fingerprint(self) -> str:
        """Hash what determines the findings, besides the maps."""
        metrics = metrics_path(self.audit)
        curves = None if metrics is None else read_curves(metrics)
        facts = [index_facts(self.audit), model_facts(self.audit), self.audit.class_map, curves]
        measures = measures_fingerprint(self.audit.dataset_audit)
        return fingerprint_of([FINDINGS_VERSION, *facts, *measures])

    def source(self, inputs: Inputs) -> Source:  # noqa: ARG002
        """Return all maps at once."""
        return Rows(MAPS)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:
        """Yield a function that computes the metrics of all records."""
        yield lambda records: summarize(self.audit, records, inputs[TRUST]).dump()


def summarize(audit: AuditConfig, records: pa.Table, trust_records: pa.Table) -> Summary:
    """Compute the metrics of an audit from its records and the checks of its maps.

    Raises:
        PlanError: there are no records, or ``class_map`` has an unknown class.
    """
    from ...report.versions import versions
    from .findings import compute_findings
    from .suspects.image_table import read_image_table
    from .suspects.search import search_extent

    if not records.num_rows:
        raise PlanError("audit: expected at least one readable image, got none; see quarantine.jsonl")
    facts = json.loads(records["model"][0].as_py())
    match = match_audited_classes(audit, int(facts["num_outputs"]))
    size = list(map_size(records))
    image = [records["image_height"][0].as_py(), records["image_width"][0].as_py()]
    findings = compute_findings(records, match.names, match.num_index)
    findings["border_mass"]["even_map"] = uniform_shares((image[0], image[1]))["border_mass"]
    plan_notes = [note.partition("\n")[0] for note in audit.plan_warnings()]
    notes = list_notes(audit, findings, match, facts, plan_notes)
    if audit.dataset_audit is not None:
        missing = num_unmatched(audit.dataset_audit, records["key"].to_pylist())
        if missing:
            notes.append(f"the audit of the dataset has no records of {missing:,} audited images")
    trust = judge(trust_records, records, audit.plan.seed)
    if trust.trusted is False:
        notes += [f"the maps are not trustworthy for this model: {reason}" for reason in trust.reasons]
    metrics = metrics_path(audit)
    findings |= {
        "trust": trust.to_dict(),
        "searched": search_extent(read_image_table(records, match, audit.plan.seed)),
        "split": audit.split,
        "map_size": size,
        "image_size": image,
        "preprocessing": preprocessing(audit),
        "index": index_facts(audit),
        "target_layer": records["target_layer"][0].as_py(),
        "method": audit.method,
        "explain": ", ".join(audit.targets),
        "model_classes": {
            "num_outputs": facts["num_outputs"],
            "names_from": match.source,
            "matched_by": match.how,
            "class_map": audit.class_map,
            "not_in_model": list(match.unknown),
        },
        "notes": notes,
        "model": model_facts(audit) | {"num_outputs": facts["num_outputs"], "untrained": facts["untrained"]},
        "weights_report": facts["weights"],
        "plan_fingerprint": audit.plan.fingerprint(),
        "seed": audit.plan.seed,
        "versions": versions(),
    }
    return Summary(
        findings,
        match.names,
        plan_notes,
        void_notes=[note for note in notes if match.how == "none" and note in match.notes],
        curves={} if metrics is None else read_curves(metrics),
    )


def list_notes(
    audit: AuditConfig,
    findings: Mapping[str, Any],
    match: ClassMatch,
    facts: Mapping[str, Any],
    plan_notes: Sequence[str],
) -> list[str]:
    """List warnings to show before the results."""
    notes = []
    if facts["untrained"]:
        notes.append(
            f"the model is not trained: {', '.join(facts['untrained'][:3])} have random values; its predictions and maps "
            "are meaningless"
        )
    if audit.plan.load_index().is_multi_label:
        notes.append(
            "images of this index may have several classes: accuracy is not measured, and maps explain the predicted "
            "class"
        )
    notes += [*match.notes, *plan_notes]
    if facts.get("target_layer_note"):
        notes.append(facts["target_layer_note"])
    if findings["num_without_map"]:
        notes.append(f"{findings['num_without_map']:,} images have no map, because its values are not finite")
    if findings["num_unknown_class"] and match.how != "none":
        notes.append(
            f"{findings['num_unknown_class']:,} images have a class that the model does not have; they are excluded "
            "from the accuracy"
        )
    return notes


def metrics_path(audit: AuditConfig) -> Path | None:
    """Return the file with training metrics: the one given, or the one next to the checkpoint."""
    if audit.training_metrics or not audit.checkpoint:
        return audit.training_metrics
    sibling = audit.checkpoint.parent / "metrics.jsonl"
    return sibling if sibling.is_file() else None


def preprocessing(audit: AuditConfig) -> list[str]:
    """List the preprocessing steps of an audited image."""
    from ....pipeline.compiler.program import Program
    from ....pipeline.tools.explain import explain

    plan = audit.plan.model_copy(update={"augment": ()})
    steps = explain(Program.compile(plan), None)
    return [f"{step.name} {step.options}".strip() for step in steps if step.name not in ("Read", "Draw")]


def index_facts(audit: AuditConfig) -> dict[str, Any]:
    """Return name, date, size and fingerprint of the index."""
    from datetime import UTC, datetime

    index, path = audit.plan.load_index(), audit.plan.index
    date = datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
    return {"name": path.name, "date": date, "rows": len(index), "fingerprint": index.fingerprint()}
