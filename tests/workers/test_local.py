"""Jobs of others, run in this process: found by name, whole results, and taken up where they stopped."""

from __future__ import annotations

import io
import json
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lightwell.pipeline.errors import OutputError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.contracts import Context
from lightwell.pipeline.jobs.find_job import find_job
from lightwell.pipeline.jobs.progress import LineConsole, SilentConsole
from lightwell.pipeline.jobs.stages import stages_of
from lightwell.pipeline.outputs.folder import OutputFolder
from lightwell.pipeline.plan.plan import BatchOptions, Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_batch_job, run_training_job
from lightwell.workers.quarantine_log import QuarantineLog
from lightwell.workers.record_store import RecordStore
from lightwell.workers.stage_runner import run_stage
from pictures import make_folder
from ray_jobs import files_of

THEIRS = '''
    """A batch job and a training job of somebody else: nothing but the contracts."""

    from contextlib import contextmanager
    from dataclasses import dataclass

    import pyarrow as pa
    from lightwell.pipeline.plan.plan import Plan
    from lightwell.pipeline.plan.view import View


    @dataclass(frozen=True)
    class MeanColour:
        plan: Plan
        view: View = View()
        schema = pa.schema({"key": pa.string(), "mean": pa.float64()})

        def fingerprint(self):
            return self.plan.fingerprint()

        @contextmanager
        def open(self):
            def work(batch):
                means = [float(x.float().mean()) for x in batch.images]
                return pa.record_batch({"key": batch.keys, "mean": means}, schema=self.schema)

            yield work

        def finish(self, records, context):
            return {"mean": float(records["mean"].to_numpy().mean()), "used": context.counts["used"]}


    @dataclass(frozen=True)
    class CountImages:
        plan: Plan
        view: View = View(shuffle=True, num_epochs=2)

        def run(self, feed, context):
            return {"images": sum(len(batch) for batch in context.console.track(feed, "count"))}
'''


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Eleven pictures, the fourth of them cut off."""
    photos = make_folder(tmp_path / "photos", num_images=11)
    damaged = photos / "dog" / "003.jpg"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    build_index(photos, fractions={"test": 1.0}).save(tmp_path / "index.parquet")
    policy = [{"Resize": {"height": 32, "width": 32}}]
    return Plan.model_validate(
        {"index": tmp_path / "index.parquet", "preprocess": policy, "batch": {"size": 2}}
    )


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package outside of this tree."""
    package = tmp_path / "elsewhere" / "theirs"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "audit.py").write_text(textwrap.dedent(THEIRS))
    monkeypatch.syspath_prepend(str(package.parent))
    for name in ("theirs", "theirs.audit"):
        sys.modules.pop(name, None)
    yield
    for name in ("theirs", "theirs.audit"):
        sys.modules.pop(name, None)


@dataclass(frozen=True)
class Stumbling:
    """Notes every image it is given; breaks at one of them while the file ``trip`` is there."""

    plan: Plan
    trip: Path
    seen: list[str] = field(default_factory=list)
    view: View = field(default_factory=View)
    schema = pa.schema({"key": pa.string(), "sum": pa.int64()})

    def fingerprint(self) -> str:
        return self.plan.fingerprint()

    @contextmanager
    def open(self) -> Iterator[object]:
        def work(batch: object) -> pa.RecordBatch:
            if batch.step == 3 and self.trip.exists():
                raise RuntimeError("the power went out")
            self.seen.extend(batch.keys)
            kept = [row for row in range(len(batch)) if not batch.replaced[row]]
            sums = [int(batch.images[row].int().sum()) for row in kept]
            return pa.record_batch(
                {"key": [batch.keys[row] for row in kept], "sum": sums}, schema=self.schema
            )

        yield work

    def finish(self, records: object, context: Context) -> dict[str, object]:
        return {
            "num": records.num_rows,
            "counts": dict(context.counts),
            "bad": [e["key"] for e in context.quarantine],
        }


def engine() -> LocalEngine:
    return LocalEngine(num_threads=1)


@pytest.mark.usefixtures("theirs")
def test_a_batch_job_of_another_package_is_found_and_run(plan: Plan, tmp_path: Path) -> None:
    job = find_job("theirs.audit:MeanColour", allow_import=("theirs",))(plan=plan)
    out = tmp_path / "out"
    found = run_batch_job(job, engine(), out, SilentConsole())
    records = pq.read_table(out / "records.parquet")
    assert records.column_names == ["key", "mean"]
    assert records.num_rows == 11
    assert 0 < found["mean"] < 255
    assert found["used"] == 10
    assert json.loads((out / "counts.json").read_text()) == {
        "read": 11,
        "used": 10,
        "replaced": 1,
        "skipped": 0,
    }
    entries = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert [entry["key"] for entry in entries] == ["dog/003.jpg"]
    assert sorted(path.name for path in out.iterdir()) == [
        ".lightwell.json",
        "counts.json",
        "quarantine.jsonl",
        "records.parquet",
        "stages",
    ]
    (stage,) = (out / "stages").iterdir()
    assert stage.name.startswith("records-")
    assert [path.name for path in stage.iterdir()] == ["records.parquet"]


@pytest.mark.usefixtures("theirs")
def test_a_training_job_of_another_package_is_found_and_run(plan: Plan, tmp_path: Path) -> None:
    job = find_job("theirs.audit:CountImages", allow_import=("theirs",))(plan=plan)
    assert run_training_job(job, engine(), tmp_path / "out", SilentConsole()) == {"images": 22}


@pytest.mark.fault("a batch job interrupted")
def test_an_interrupted_job_does_only_the_rest_and_ends_the_same(plan: Plan, tmp_path: Path) -> None:
    trip = tmp_path / "trip"
    whole = run_batch_job(Stumbling(plan, trip), engine(), tmp_path / "whole", SilentConsole())
    trip.touch()
    with pytest.raises(RuntimeError, match="the power went out"):
        run_batch_job(Stumbling(plan, trip), engine(), tmp_path / "out", SilentConsole(), part_images=4)
    assert [p.name for p in (tmp_path / "out").glob("stages/*/parts/*")] == ["part-000000.parquet"]
    trip.unlink()
    again = Stumbling(plan, trip)
    assert run_batch_job(again, engine(), tmp_path / "out", SilentConsole(), part_images=4) == whole
    assert len(again.seen) == 7
    expected, got = (pq.read_table(tmp_path / name / "records.parquet") for name in ("whole", "out"))
    assert got.equals(expected)


def test_a_finished_job_takes_its_records_and_asks_for_no_batch(plan: Plan, tmp_path: Path) -> None:
    out, stream = tmp_path / "out", io.StringIO()
    whole = run_batch_job(Stumbling(plan, tmp_path / "trip"), engine(), out, SilentConsole(), part_images=4)
    kept = files_of(out)
    again = Stumbling(plan, tmp_path / "trip")
    assert run_batch_job(again, engine(), out, LineConsole(stream)) == whole
    assert again.seen == []
    assert files_of(out) == kept
    (stage,) = (out / "stages").iterdir()
    assert stream.getvalue() == (
        "records: reusing the records of all 11 images; the 1 that could not be used are not tried again; "
        f"delete stages/{stage.name}/records.parquet to make them again\n"
    )


def test_a_finished_job_takes_its_records_from_below_a_uri(plan: Plan, tmp_path: Path) -> None:
    out = f"memory://{tmp_path.name}/done"
    whole = run_batch_job(Stumbling(plan, tmp_path / "trip"), engine(), out, SilentConsole())
    again = Stumbling(plan, tmp_path / "trip")
    assert run_batch_job(again, engine(), out, SilentConsole()) == whole
    assert again.seen == []


@pytest.mark.parametrize("spoil", ["another plan", "damaged", "deleted", "no note"])
def test_records_that_are_not_those_of_the_job_are_made_anew(plan: Plan, tmp_path: Path, spoil: str) -> None:
    out = tmp_path / "out"
    run_batch_job(Stumbling(plan, tmp_path / "trip"), engine(), out, SilentConsole())
    (records,) = out.glob("stages/*/records.parquet")
    expected = pq.read_table(records)
    if spoil == "another plan":
        plan = plan.model_copy(update={"seed": 5})
    elif spoil == "damaged":
        content = bytearray(records.read_bytes())
        column = pq.read_metadata(records).row_group(0).column(0)
        start = column.dictionary_page_offset or column.data_page_offset
        content[start + column.total_compressed_size - 1] ^= 255
        records.write_bytes(content)
    elif spoil == "deleted":
        records.unlink()
    else:
        pq.write_table(expected.replace_schema_metadata(None), records)
    again = Stumbling(plan, tmp_path / "trip")
    run_batch_job(again, engine(), out, SilentConsole())
    assert len(again.seen) == 11
    assert pq.read_table(out / "records.parquet").equals(expected)


def test_parts_of_another_plan_are_not_used_and_go_at_the_end(plan: Plan, tmp_path: Path) -> None:
    trip = tmp_path / "trip"
    trip.touch()
    with pytest.raises(RuntimeError, match="the power went out"):
        run_batch_job(Stumbling(plan, trip), engine(), tmp_path / "out", SilentConsole(), part_images=4)
    trip.unlink()
    other = Stumbling(plan.model_copy(update={"seed": 5}), trip)
    run_batch_job(other, engine(), tmp_path / "out", SilentConsole())
    assert len(other.seen) == 11
    assert not list((tmp_path / "out").glob("stages/*/parts/*"))


@pytest.mark.parametrize("part_images", [1, 2, 5, 10])
def test_parts_of_any_size_merge_to_the_same_records(plan: Plan, tmp_path: Path, part_images: int) -> None:
    whole = run_batch_job(Stumbling(plan, tmp_path / "trip"), engine(), tmp_path / "whole", SilentConsole())
    small = plan.model_copy(update={"batch": BatchOptions(size=1)})
    job = Stumbling(small, tmp_path / "trip2")
    parts = run_batch_job(job, engine(), tmp_path / "parts", SilentConsole(), part_images=part_images)
    assert parts == whole
    expected, got = (pq.read_table(tmp_path / name / "records.parquet") for name in ("whole", "parts"))
    assert got.equals(expected)


def test_an_output_that_cannot_be_written_is_said_before_any_work(plan: Plan, tmp_path: Path) -> None:
    job = Stumbling(plan, tmp_path / "trip")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"expected a folder that can be written.*choose another"):
        run_batch_job(job, engine(), tmp_path / "file" / "out", SilentConsole())
    assert job.seen == []


def test_the_records_of_ranks_are_those_of_one_rank_and_padding_leaves_none(
    plan: Plan, tmp_path: Path
) -> None:
    """Eleven images in batches of four by four ranks: the last batch is three of them and a repeat."""
    plan = plan.model_copy(update={"batch": BatchOptions(size=4)})
    whole = run_batch_job(Stumbling(plan, tmp_path / "trip"), engine(), tmp_path / "whole", SilentConsole())
    parts = []
    for rank in range(4):
        job = Stumbling(plan, tmp_path / "trip", view=View(rank=rank, num_ranks=4))
        parts.append(run_batch_job(job, engine(), tmp_path / f"rank-{rank}", SilentConsole()))
    assert sum(part["num"] for part in parts) == whole["num"]
    counts = [part["counts"] for part in parts]
    assert {name: sum(each[name] for each in counts) for name in counts[0]} == whole["counts"]
    keys = [
        key
        for name in ("whole", *(f"rank-{rank}" for rank in range(4)))
        for key in pq.read_table(tmp_path / name / "records.parquet")["key"].to_pylist()
    ]
    assert sorted(keys[: whole["num"]]) == sorted(keys[whole["num"] :])


def test_a_part_notes_only_what_no_earlier_part_has_noted(tmp_path: Path) -> None:
    photos = make_folder(tmp_path / "photos", num_images=12)
    build_index(photos, fractions={"test": 1.0}).save(tmp_path / "index.parquet")
    for path in sorted(photos.rglob("*.jpg"))[::4]:
        path.write_bytes(path.read_bytes()[:300])
    policy = [{"Resize": {"height": 32, "width": 32}}]
    plan = Plan.model_validate(
        {"index": tmp_path / "index.parquet", "preprocess": policy, "batch": {"size": 2}}
    )
    job = Stumbling(plan, tmp_path / "trip")
    with OutputFolder.open(tmp_path / "out", kind="Stumbling", outputs=None) as output:
        (stage,) = stages_of(job)
        store = RecordStore(output, "stages/records-0123456789abcdef", stage.schema)
        assert store.resume_parts() == []
        watched = QuarantineLog(tmp_path / "quarantine.jsonl").record(engine())
        total = run_stage(
            stage, {}, watched, store, SilentConsole(), [], label="records", part_images=2
        ).total
        parts = store.resume_parts()
    noted = [(entry["key"], entry["step"]) for part in parts for entry in part.quarantine]
    assert len(noted) == len(set(noted)) == 3
    assert len(total.quarantine) == total.counts["replaced"] == 3


def test_the_end_of_a_job_says_what_was_slow(plan: Plan, tmp_path: Path) -> None:
    stream = io.StringIO()
    run_batch_job(Stumbling(plan, tmp_path / "trip"), engine(), tmp_path / "out", LineConsole(stream))
    lines = stream.getvalue().splitlines()
    assert lines[0].split()[:3] == ["step", "threads", "working"]
    assert lines[-1].startswith("bottleneck: ")
    assert "11 images in" in lines[-2]


def test_what_a_killed_run_was_writing_goes(plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / f".records.parquet.{'a' * 32}.tmp").write_bytes(b"half")
    run_batch_job(Stumbling(plan, tmp_path / "trip"), engine(), out, SilentConsole())
    assert [path.name for path in out.glob(".*")] == [".lightwell.json"]
