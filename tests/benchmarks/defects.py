"""``defects``: copies, leaks and a property planted in labelled photos, and how many of them a dataset audit finds.

The folder holds class folders. For each seed photos are drawn from it and saved alike, once with planted defects and once as a
clean twin whose labels are drawn, and `lightwell inspect` audits both without a network. A planted copy is found if the fix
list drops one image of the pair, a planted property if the finding names the JPEG quality and the class. A finding about
copies, leakage, drift, order or properties in a clean twin is a false alarm; photos that are in the folder twice are counted
as such, too.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from statistics import fmean

from lightwell import LocalEngine, Plan, build_index
from lightwell.models.audits.dataset.job import DatasetAudit
from lightwell.models.audits.findings.intervals import wilson
from lightwell.pipeline.errors import SourceError
from lightwell.workers.local import run_batch_job
from rich.console import Console

from .benchmark import NUM_WORKERS, Benchmark, Contestant, Ratio
from .photos import find_photos, is_plain
from .planted_folder import COPIES, IMAGES_PER_CLASS, PREVALENCES, Planted, plant_folder

NUM_SEEDS = 20
MIN_CLASSES = 3
OUTCOMES = "outcomes.json"
ALARMS = ("exact_duplicate", "near_duplicate", "leakage", "drift", "sample_order", "predictive_property")
"""Kinds of findings that a clean twin has no reason for."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was planted in a folder, or found in a clean twin."""

    seed: int
    is_clean: bool
    planted: tuple[tuple[str, bool], ...]
    """Each defect, and whether it was found."""
    alarms: tuple[str, ...]
    """Kinds of the findings of a clean twin that it has no reason for."""
    extra: tuple[str, ...]
    """Images that the fix list drops without being planted, with the reason."""


def prepare(data: Path, scratch: Path) -> tuple[str, ...]:
    """Plant and audit for all seeds; the contestants read the outcomes."""
    console = Console(stderr=True, highlight=False, markup=False)
    photos: dict[str, list[Path]] = {}
    for path in find_photos(data, is_plain):
        photos.setdefault(path.parent.name, []).append(path)
    photos = {name: paths for name, paths in photos.items() if len(paths) >= IMAGES_PER_CLASS}
    if len(photos) < MIN_CLASSES:
        raise SourceError(
            f"--data: expected at least {MIN_CLASSES} class folders with {IMAGES_PER_CLASS} photos each, got {len(photos)}; "
            "give a larger folder"
        )
    outcomes = []
    for seed in range(NUM_SEEDS):
        for is_clean in (False, True):
            folder = scratch / f"{seed}-{'clean' if is_clean else 'planted'}"
            planted = plant_folder(photos, folder / "photos", seed, is_clean=is_clean)
            outcomes.append(audit_folder(folder, planted, seed, is_clean=is_clean))
            rmtree(folder)
        console.print(f"defects: {seed + 1} of {NUM_SEEDS} seeds")
    (scratch / OUTCOMES).write_text(json.dumps([asdict(each) for each in outcomes]))
    return tuple(str(path) for paths in photos.values() for path in paths)


def audit_folder(folder: Path, planted: Planted, seed: int, *, is_clean: bool) -> Outcome:
    """Audit the folder's photos and compare the findings with what was planted."""
    build_index(folder / "photos").save(folder / "index.parquet")
    audit = DatasetAudit(plan=Plan(index=folder / "index.parquet", seed=seed))
    findings = run_batch_job(audit, LocalEngine(num_threads=NUM_WORKERS), folder / "out")["findings"]
    with (folder / "out" / "fixes.csv").open(newline="") as file:
        fixes = {row["key"]: row["reason"] for row in csv.DictReader(file) if row["action"] == "drop"}
    found = []
    for copy in planted.copies:
        what = f"{'leak' if copy.leaks else 'duplicate'}, {copy.kind}"
        found.append((what, copy.key in fixes or (not copy.leaks and copy.source in fixes)))
    if planted.trace is not None:
        is_found = any(
            each["kind"] == "predictive_property"
            and each["class_name"] == planted.trace.class_name
            and each["group"].startswith("jpeg_quality")
            for each in findings
        )
        found.append((f"property, {100 * planted.trace.prevalence:g} % of a class", is_found))
    pairs = {key for copy in planted.copies for key in (copy.key, copy.source)}
    return Outcome(
        seed,
        is_clean,
        tuple(found),
        tuple(each["kind"] for each in findings if is_clean and each["kind"] in ALARMS),
        tuple(f"{key}: {reason}" for key, reason in fixes.items() if key not in pairs),
    )


def read_outcomes(scratch: str) -> list[Outcome]:
    """Read what `prepare` wrote."""
    return [Outcome(**each) for each in json.loads((Path(scratch) / OUTCOMES).read_text())]


def recall(outcomes: list[Outcome], subject: str) -> float:
    """Return the percentage found of the defects whose name begins with the subject."""
    return 100 * fmean(found for each in outcomes for what, found in each.planted if what.startswith(subject))


def details(scratch: Path) -> list[dict[str, str | float]]:
    """Return a row for each kind of defect, then for each kind of false alarm."""
    return list(_rows(read_outcomes(str(scratch))))


def _rows(outcomes: list[Outcome]) -> Iterator[dict[str, str | float]]:
    wanted = [f"{subject}, {kind}" for subject in ("leak", "duplicate") for kind in COPIES]
    wanted += [f"property, {100 * share:g} % of a class" for share in PREVALENCES]
    for name in wanted:
        hits = [found for each in outcomes for what, found in each.planted if what == name]
        low, high = wilson(sum(hits), len(hits)) or (0.0, 1.0)
        yield {
            "planted": name,
            "found": f"{sum(hits)} of {len(hits)}",
            "95 % interval": f"{100 * low:.0f} to {100 * high:.0f} %",
        }
    twins = [each for each in outcomes if each.is_clean]
    for kind in ALARMS:
        alarms = sum(kind in each.alarms for each in twins)
        low, high = wilson(alarms, len(twins)) or (0.0, 1.0)
        yield {
            "planted": f"nothing: {kind}",
            "found": f"{alarms} of {len(twins)}",
            "95 % interval": f"{100 * low:.0f} to {100 * high:.0f} %",
        }
    extra = sorted({line for each in outcomes for line in each.extra})
    yield {"planted": "nothing: images dropped", "found": str(len(extra)), "95 % interval": ""}


BENCH = Benchmark(
    name="defects",
    about=f"copies within training and of test images, and one class saved at another JPEG quality; {NUM_SEEDS} folders and as "
    "many clean twins",
    unit="percent found",
    contestants=(
        Contestant("ours, leaks", "defective:leaks"),
        Contestant("ours, duplicates", "defective:duplicates"),
        Contestant("ours, properties", "defective:properties"),
        Contestant("ours, false alarms", "defective:alarms", unit="percent of clean twins"),
    ),
    ratios=(Ratio("leaks", "ours, leaks", 100.0), Ratio("duplicates", "ours, duplicates", 100.0)),
    prepare=prepare,
    streams=False,
    details=details,
    is_deterministic=True,
)
