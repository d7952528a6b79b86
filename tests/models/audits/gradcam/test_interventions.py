"""Interventions: a planted mark is confirmed, a region that the network ignores is refuted, whatever the batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from lightwell import LocalEngine, Plan, run_batch_job
from lightwell.models.audits.findings.finding import SCHEMA, Effect, Finding, Null, Region, findings_batch
from lightwell.models.audits.gradcam.config import AuditConfig
from lightwell.models.audits.gradcam.confirmation import confirm_finding, decide
from lightwell.models.audits.gradcam.intervention_stage import InterventionStage
from lightwell.models.audits.gradcam.interventions import (
    INTERVENTION_SCHEMA,
    MAX_SUSPECTS,
    choose_suspects,
    make_pairs,
)
from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.models.audits.gradcam.map_stage import MapStage
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.jobs.stages import Inputs, Process, Rows
from shortcut import corner


def suspect(
    weights: np.ndarray, keys: tuple[str, ...], other_keys: tuple[str, ...], **changes: Any
) -> Finding:
    region = Region.from_weights("a corner", weights)
    finding = Finding(
        id=f"region-{weights.argmax()}",
        kind="region",
        severity="low",
        class_name="marked",
        class_number=0,
        group=None,
        sentence="",
        effect=Effect(1.0, "share of images"),
        null=Null(0.1, q=0.01),
        num_images=32,
        num_concerned=16,
        keys=keys,
        other_keys=other_keys,
        region=region,
    )
    return replace(finding, **changes)


@dataclass(frozen=True)
class Suspects:
    """Suspects two corners of class 0: that of the mark, and the opposite one."""

    name = "suspects"
    needs = ("maps",)
    schema = SCHEMA

    def fingerprint(self) -> str:
        return "suspects"

    def source(self, inputs: Inputs) -> Rows:
        return Rows("maps")

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:
        def process(records: pa.Table) -> pa.RecordBatch:
            labels = dict(zip(records["key"].to_pylist(), records["label"].to_pylist(), strict=True))
            own, others = (
                tuple(key for key, label in labels.items() if label == number) for number in (0, 1)
            )
            places = (corner(0, 0), corner(3, 3))
            return findings_batch([suspect(place, own[:12], others[:10]) for place in places])

        yield process


class MarkAudit(AuditConfig):
    """Maps, suspects and their interventions."""

    @property
    def stages(self) -> Any:
        return MapStage(self), Suspects(), InterventionStage(self)

    def finish(self, records: Inputs, context: Any) -> Mapping[str, Any]:
        found = records["suspects"], records["interventions"]
        return {"suspects": found[0].to_pylist(), "rows": found[1].to_pylist()}


@pytest.fixture(scope="module")
def plan(marked: tuple[Plan, Path]) -> Plan:
    return marked[0]


@pytest.fixture(scope="module")
def checkpoint(marked: tuple[Plan, Path]) -> Path:
    return marked[1]


def run(job: AuditConfig, out: Path) -> tuple[list[Finding], pa.Table]:
    found: Any = run_batch_job(job, LocalEngine(num_threads=1), out, SilentConsole())
    return [Finding.from_dict(each) for each in found["suspects"]], pa.Table.from_pylist(
        found["rows"], schema=INTERVENTION_SCHEMA
    )


@pytest.fixture(scope="module")
def tested(
    plan: Plan, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Finding], pa.Table]:
    return run(
        MarkAudit(plan=plan, checkpoint=checkpoint, interventions=11), tmp_path_factory.mktemp("tested")
    )


def test_a_planted_mark_is_confirmed_and_an_ignored_corner_refuted(
    tested: tuple[list[Finding], pa.Table],
) -> None:
    (mark, ignored), rows = tested
    confirmation = confirm_finding(mark, rows, 0)
    assert confirmation.status == "confirmed"
    assert confirmation.drop is not None
    assert confirmation.paste is not None
    assert confirmation.flip_rate is not None
    assert min(confirmation.drop.value, confirmation.paste.value, confirmation.flip_rate.value) > 0.5
    assert abs(confirmation.control_drop or 0) < 0.3
    assert confirm_finding(ignored, rows, 0).status == "refuted"
    unknown = replace(mark, id="region-unknown")
    assert confirm_finding(unknown, rows, 0).status == "not tested"


@pytest.mark.parametrize(("paste", "status"), [(0.1, "confirmed"), (-0.08, "refuted"), (None, "refuted")])
def test_edges_count_only_if_pasting_them_raises_the_probability(
    tested: tuple[list[Finding], pa.Table], paste: float | None, status: str
) -> None:
    """Removing them lowers it in either case, as removing the dark rims of solar cells does."""
    (mark, _), rows = tested
    changed = [
        row
        if row["role"] == "own"
        else row | {"after": row["before"] + (paste or 0), "control": row["before"] - 0.15}
        for row in rows.to_pylist()
        if row["role"] == "own" or paste is not None
    ]
    table = pa.Table.from_pylist(changed, schema=rows.schema)
    assert confirm_finding(mark, table, 0).status == "confirmed"
    assert confirm_finding(replace(mark, kind="frame"), table, 0).status == status


def test_each_suspect_has_its_own_and_other_images(tested: tuple[list[Finding], pa.Table]) -> None:
    """Eleven pairs each, over several batches; the ten others are repeated."""
    suspects, rows = tested
    for each in suspects:
        of_suspect = [row for row in rows.to_pylist() if row["finding"] == each.id]
        own = [row["key"] for row in of_suspect if row["role"] == "own"]
        other = [(row["key"], row["partner"]) for row in of_suspect if row["role"] == "other"]
        assert own == list(each.keys[:11])
        assert other == [(each.other_keys[n % 10], own[n]) for n in range(11)]
    before = {row["key"]: row["before"] for row in rows.to_pylist()}
    assert all(row["before"] == pytest.approx(before[row["key"]], abs=1e-5) for row in rows.to_pylist())


def test_unreadable_images_lose_their_pair_only(
    plan: Plan, checkpoint: Path, tested: tuple[list[Finding], pa.Table], tmp_path: Path
) -> None:
    suspects, rows = tested
    lost = {suspects[0].keys[1], suspects[0].other_keys[5]}
    maps = tmp_path / "maps_first"
    job = MarkAudit(plan=plan, checkpoint=checkpoint, interventions=11)
    run(job, maps)
    for folder in maps.glob("stages/interventions-*"):
        for file in sorted(folder.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        folder.rmdir()
    saved = {key: (plan.index.parent / "photos" / key).read_bytes() for key in lost}
    try:
        for key in lost:
            (plan.index.parent / "photos" / key).write_bytes(b"damaged")
        _, fewer = run(job, maps)
    finally:
        for key, content in saved.items():
            (plan.index.parent / "photos" / key).write_bytes(content)
    left = [row for row in rows.to_pylist() if not {row["key"], row["partner"]} & lost]
    paired = {(row["finding"], row["key"]) for row in fewer.to_pylist()}
    assert paired <= {(row["finding"], row["key"]) for row in left}
    assert len(fewer) == len(rows) - 2 * 2 * len(lost)


def test_the_rule_of_confirmation() -> None:
    def status(removed: list[float], pasted: list[float], overlap: float = 0.0) -> str:
        generator = np.random.default_rng(0)
        return decide(np.array(removed), np.array(pasted), generator, overlap=overlap)

    large, none, wide = [0.3, 0.4, 0.2, 0.3, 0.5], [0.0, 0.01, -0.01, 0.0, 0.0], [0.9, -0.9, 0.5, -0.5, 0.3]
    assert status(large, none) == "confirmed"
    assert status(none, large) == "confirmed", "the object alone suffices, and so does the mark"
    assert status(none, none) == "refuted"
    assert status(none, []) == "refuted", "there is no other image"
    assert status(none, wide) == "not testable"
    assert status([0.03] * 5, [0.04] * 5) == "refuted", "certain, but too small to matter"
    assert status([-value for value in large], none) == "refuted", "the region is evidence against the class"
    assert status(large[:4], none[:4]) == "not testable", "too few images"
    assert status(large, large, overlap=0.5) == "not testable"


def test_suspects_without_region_class_or_images_are_not_tested_and_their_number_is_bounded() -> None:
    good = suspect(corner(0, 0), ("a",), ("b",))
    for change in ({"region": None}, {"class_number": -1}, {"keys": ()}):
        assert choose_suspects([replace(good, **change)]) == ()
    many = [replace(good, id=f"{n:03}", null=Null(None, q=1 - n / 100)) for n in range(60)]
    chosen = choose_suspects(many)
    assert [each.id for each in chosen] == [f"{n:03}" for n in range(59, 59 - MAX_SUSPECTS, -1)]
    alone = make_pairs([replace(good, other_keys=("a",))], 3)
    assert [pair.keys for pair in alone] == [("a", "a")]
    assert alone[0].other is None


def test_the_number_of_pairs_changes_the_interventions_only(plan: Plan, checkpoint: Path) -> None:
    job = GradCamAudit(plan=plan, checkpoint=checkpoint)
    fewer = job.model_copy(update={"interventions": 2})
    assert MapStage(job).fingerprint() == MapStage(fewer).fingerprint()
    assert InterventionStage(job).fingerprint() != InterventionStage(fewer).fingerprint()
