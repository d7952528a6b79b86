"""Stages of a dataset audit: measures of files and images, their join, checks, findings and fix list."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from ....pipeline.jobs.fingerprint import fingerprint_of
from ....pipeline.jobs.stages import Files, Images, Inputs, Process, Rows, Source
from ....pipeline.plan.plan import Plan
from ....pipeline.statistics.file_measures import file_measures
from ....pipeline.statistics.image_measures import image_measures
from ..findings.finding import SCHEMA
from .checks.all_checks import CHECKS_VERSION, run_checks
from .checks.domain_gap import measure_gap
from .checks.fixes import FIX_SCHEMA
from .domain_stage import DOMAIN, DomainStage, domain_stages
from .effects.changed_features import ChangedFeatureStage, changed_feature_stages
from .effects.effect_stage import EffectStage, effect_stages, has_steps
from .feature_plan import FEATURES, feature_stages, network_facts
from .picture_stage import PictureStage
from .records import (
    CHECKS,
    FILES,
    FILES_SCHEMA,
    FINDINGS,
    FIXES,
    IMAGES,
    IMAGES_SCHEMA,
    PLAN_EFFECTS,
    RECORDS,
    RECORDS_SCHEMA,
    join_records,
    table_of,
)
from .summary import summarize

if TYPE_CHECKING:
    from ....pipeline.load.samples import FileSample, ImageSample
    from ...features.embed import FeatureStage
    from .job import DatasetAudit

MEASURES_VERSION = 3
"""To be increased when a measure gives other values than before."""
CHECKS_SCHEMA = pa.schema(
    {
        "summary": pa.string(),
        "findings": pa.list_(pa.struct(list(SCHEMA))),
        "fixes": pa.list_(pa.struct(list(FIX_SCHEMA))),
    }
)
"""One row: the summary as JSON, findings and fix list."""


def data_fingerprint(plan: Plan) -> str:
    """Hash index, error policy and seed of a plan, without its transforms: other ones need no new measures."""
    return Plan(index=plan.index, errors=plan.errors, seed=plan.seed).fingerprint()


@dataclass(frozen=True)
class FileStage:
    """Measures of the stored files."""

    audit: DatasetAudit

    name = FILES
    needs = ()
    schema = FILES_SCHEMA

    def fingerprint(self) -> str:
        """Hash index, split and version."""
        return fingerprint_of([MEASURES_VERSION, data_fingerprint(self.audit.plan), self.audit.split])

    def source(self, inputs: Inputs) -> Source:  # noqa: ARG002
        """Return the files of the split."""
        return Files(self.audit.plan, self.audit.split)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:  # noqa: ARG002
        """Yield a function that measures files."""

        def process(samples: Iterable[FileSample]) -> pa.RecordBatch:
            rows = [
                {
                    "key": sample.key,
                    **file_measures(
                        sample.data, sample.row["format"], sample.row["width"], sample.row["height"]
                    ),
                }
                for sample in samples
            ]
            return pa.RecordBatch.from_pylist(rows, schema=FILES_SCHEMA)

        yield process


@dataclass(frozen=True)
class ImageStage:
    """Measures of the decoded images."""

    audit: DatasetAudit

    name = IMAGES
    needs = ()
    schema = IMAGES_SCHEMA

    def fingerprint(self) -> str:
        """Hash index, split and version."""
        return fingerprint_of([MEASURES_VERSION, data_fingerprint(self.audit.plan), self.audit.split])

    def source(self, inputs: Inputs) -> Source:  # noqa: ARG002
        """Return the images of the split at their full size."""
        return Images(self.audit.plan, self.audit.split)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:  # noqa: ARG002
        """Yield a function that measures images."""

        def process(samples: Iterable[ImageSample]) -> pa.RecordBatch:
            rows = [{"key": sample.key, **image_measures(sample.image)} for sample in samples]
            return pa.RecordBatch.from_pylist(rows, schema=IMAGES_SCHEMA)

        yield process


@dataclass(frozen=True)
class RecordStage:
    """One row per image of the index, with all measures."""

    audit: DatasetAudit

    name = RECORDS
    needs = (FILES, IMAGES)
    schema = RECORDS_SCHEMA

    def fingerprint(self) -> str:
        """Hash index and split."""
        return fingerprint_of([data_fingerprint(self.audit.plan), self.audit.split])

    def source(self, inputs: Inputs) -> Source:  # noqa: ARG002
        """Return the measures of all files at once."""
        return Rows(FILES)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:
        """Yield a function that joins measures to the index."""
        index = self.audit.plan.load_index()
        yield lambda files: join_records(index, self.audit.split, files, inputs[IMAGES])


@dataclass(frozen=True)
class CheckStage:
    """All checks, once."""

    audit: DatasetAudit

    name = CHECKS
    schema = CHECKS_SCHEMA

    @property
    def needs(self) -> tuple[str, ...]:
        """Records, features if there is a network, and effects of the plan's transforms if it has some."""
        features = (FEATURES, DOMAIN) if self.audit.has_network else ()
        effects = (PLAN_EFFECTS,) if has_steps(self.audit.plan) else ()
        changed = (stage.name for stage in changed_feature_stages(self.audit))
        return (RECORDS, *features, *effects, *changed)

    def fingerprint(self) -> str:
        """Hash the version of the checks, the classes and the seed."""
        index = self.audit.plan.load_index()
        return fingerprint_of([CHECKS_VERSION, list(index.classes), self.audit.plan.seed])

    def source(self, inputs: Inputs) -> Source:  # noqa: ARG002
        """Return all records at once."""
        return Rows(RECORDS)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:
        """Yield a function that runs the checks."""
        index = self.audit.plan.load_index()
        changes = [(stage.changing, inputs[stage.name]) for stage in changed_feature_stages(self.audit)]

        def process(records: pa.Table) -> pa.RecordBatch:
            table = table_of(records, index.classes, self.audit.plan.seed, inputs.get(FEATURES))
            domain = inputs.get(DOMAIN)
            gap = None if domain is None else measure_gap(domain)
            findings, fixes = run_checks(table, self.audit.plan, inputs.get(PLAN_EFFECTS), changes, gap)
            row = {
                "summary": json.dumps(
                    {**summarize(table, index), "network": network_facts(self.audit, domain)},
                    ensure_ascii=False,
                ),
                "findings": [finding.to_dict() for finding in findings],
                "fixes": [asdict(fix) for fix in fixes],
            }
            return pa.RecordBatch.from_pylist([row], schema=CHECKS_SCHEMA)

        yield process


@dataclass(frozen=True)
class ListStage:
    """A list of the checks as records of its own."""

    name: str
    """``findings`` or ``fixes``."""

    needs = (CHECKS,)

    @property
    def schema(self) -> pa.Schema:
        """Schema of the list's items."""
        return SCHEMA if self.name == FINDINGS else FIX_SCHEMA

    def fingerprint(self) -> str:
        """Return the name; all else is determined by the checks."""
        return fingerprint_of([self.name])

    def source(self, inputs: Inputs) -> Source:  # noqa: ARG002
        """Return the row of the checks."""
        return Rows(CHECKS)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:  # noqa: ARG002
        """Yield a function that takes the list out of the row."""
        yield lambda checks: pa.RecordBatch.from_pylist(checks[self.name][0].as_py(), schema=self.schema)


def stages_of_audit(
    audit: DatasetAudit,
) -> tuple[
    FileStage
    | ImageStage
    | RecordStage
    | EffectStage
    | ChangedFeatureStage
    | DomainStage
    | CheckStage
    | ListStage
    | PictureStage
    | FeatureStage,
    ...,
]:
    """Return the stages of an audit in their order."""
    return (
        FileStage(audit),
        ImageStage(audit),
        RecordStage(audit),
        *feature_stages(audit),
        *domain_stages(audit),
        *effect_stages(audit),
        *changed_feature_stages(audit),
        CheckStage(audit),
        ListStage(FINDINGS),
        ListStage(FIXES),
        PictureStage(audit),
    )
