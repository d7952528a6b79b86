"""Runs one stage of a batch job on an engine, in parts, and keeps its records; resumes it where it was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ..pipeline.errors import PlanError
from ..pipeline.jobs.contracts import quarantine_after
from ..pipeline.jobs.stages import PartWriter
from ..pipeline.outputs.folder import OutputFolder
from .quarantine_log import entry_key
from .record_store import Part, RecordStore, size_and_digest

if TYPE_CHECKING:
    from ..pipeline.jobs.contracts import Console
    from ..pipeline.jobs.stage_run import StageEngine, StageRecords, StageRun
    from ..pipeline.jobs.stages import Inputs, Stage

    EntryKey = tuple[int, str, str]


@dataclass(frozen=True)
class StageResult:
    """Records of a finished stage."""

    records: pa.Table
    total: Part
    """Counts and quarantine entries of the whole stage."""


def load_finished(store: RecordStore, stage: Stage, console: Console) -> StageResult | None:
    """Load the records of a finished stage; None if there are none, or none of its images could be read."""
    found = store.load_finished()
    if found is None:
        return None
    total, records = found
    if not total.counts["read"] and (total.counts["left_out"] or total.counts["unusable"]):
        return None  # the files may have changed since
    store.output.claim(store.records_name, *total.files)
    replaced = total.counts["replaced"]
    again = f"; the {replaced:,} that could not be used are not tried again" if replaced else ""
    what = f"{total.counts['read']:,} images" if total.counts["read"] else f"{records.num_rows:,} rows"
    console.print(
        f"{stage.name}: reusing the records of all {what}{again}; delete {store.records_name} to make them again"
    )
    return StageResult(records, total)


def resume_parts(store: RecordStore, stage: Stage, console: Console) -> list[Part]:
    """Load the undamaged parts of an interrupted run, and report how many there are."""
    num_listed = len(store.listed_parts())
    done = store.resume_parts()
    if done:
        read = sum(part.counts["read"] for part in done)
        what = f"{read:,} images" if read else f"{len(done):,} parts"
        console.print(f"{stage.name}: resuming after {what} that are done")
    if num_listed > len(done):
        console.print(
            f"{stage.name}: {num_listed - len(done):,} of {num_listed:,} parts are damaged, or follow a damaged one; their "
            "images are read again"
        )
    return done


def run_stage(
    stage: Stage,
    inputs: Inputs,
    engine: StageEngine,
    store: RecordStore,
    console: Console,
    done: list[Part],
    *,
    label: str,
    part_images: int,
    publish: Callable[[], None] = lambda: None,
) -> StageResult:
    """Process the rest of a stage's source, after the parts that are done, and merge all parts.

    Args:
        stage: the stage.
        inputs: records of the stages that it needs.
        engine: runs the stage.
        store: keeps its records.
        console: shows progress.
        done: parts of an interrupted run, from ``resume_parts``.
        label: name of the stage, for the progress.
        part_images: images, or rows of a table, per part.
        publish: uploads the files, after each part.
    """
    parts = list(done)
    known = {entry_key(entry) for part in done for entry in part.quarantine}
    num_found = 0
    with engine.open_stage(stage, inputs, done[-1].position if done else None) as run:
        if run.num_batches:
            unusable = run.counts["skipped"]
            items = console.track(run, label)
            full = partial(is_part_full, stage, part_images)
            while (collected := collect_part(run, items, full, part_schema(stage))) is not None:
                counts, records = {**collected[0], "unusable": unusable}, collected[1]
                found = quarantine_after(run, num_found)
                num_found += len(found)
                entries = new_entries(found, known)
                records, files = write_stage_part(stage, records, len(parts), store.output)
                parts.append(Part(len(parts), counts, entries, run.position(), files))
                store.write(parts[-1], records)
                publish()
            if run.counts["read"]:
                for line in run.stats().lines():
                    console.print(line)
    total = Part.total(parts)
    return StageResult(store.merge(parts, total), total)


def part_schema(stage: Stage) -> pa.Schema:
    """Return the schema of the records that a stage's function returns."""
    return stage.part_schema if isinstance(stage, PartWriter) else stage.schema


def collect_part(
    run: StageRun,
    items: Iterator[StageRecords],
    full: Callable[[Sequence[pa.RecordBatch], int], bool],
    schema: pa.Schema,
) -> tuple[dict[str, int], pa.Table] | None:
    """Collect the records of items until a part is full; returns counts and records, or None at the end."""
    skipped = run.counts["skipped"]
    records: list[pa.RecordBatch] = []
    num_items = num_read = num_used = num_rows = 0
    for item in items:
        num_items += 1
        if item.records is not None:
            records.append(item.records)
        num_read += item.num_read
        num_used += item.num_used
        num_rows += item.num_rows
        if full(records, num_read + num_rows):
            break
    left_out = run.counts["skipped"] - skipped  # including batches without a usable image
    if not num_items and not left_out:
        return None
    counts = {"read": num_read, "used": num_used, "replaced": num_read - num_used, "left_out": left_out}
    return counts, pa.Table.from_batches(records, schema=schema)


def is_part_full(stage: Stage, most_images: int, records: Sequence[pa.RecordBatch], num_images: int) -> bool:
    """Return whether a part is full; a ``PartWriter`` decides itself."""
    if isinstance(stage, PartWriter):
        return stage.is_full(pa.Table.from_batches(records, schema=stage.part_schema))
    return num_images >= most_images


def write_stage_part(
    stage: Stage, records: pa.Table, part: int, output: OutputFolder
) -> tuple[pa.Table, dict[str, list[Any]]]:
    """Let a ``PartWriter`` write a part; returns the records to keep, and sizes and digests of its files."""
    if not isinstance(stage, PartWriter):
        return records, {}
    names = stage.part_files(records, part)
    output.claim(*names)
    kept = stage.write_part(records, part, output.path)
    found = {name: size_and_digest(output.path / name) for name in names}
    missing = [name for name, digest in found.items() if digest is None]
    if missing:
        raise PlanError(
            f"stage {stage.name}: expected `write_part` to write all `part_files`, got no {missing[0]!r}; correct the job"
        )
    return kept, {name: digest for name, digest in found.items() if digest is not None}


def new_entries(entries: Sequence[Mapping[str, Any]], known: set[EntryKey]) -> tuple[Mapping[str, Any], ...]:
    """Return the entries that no earlier part has, and add them to ``known``; repeating all would cost quadratic space."""
    new = {entry_key(entry): entry for entry in entries if entry_key(entry) not in known}
    known.update(new)
    return tuple(new.values())
