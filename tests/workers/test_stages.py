"""Batch jobs of several stages in this process: every kind of source, done once, whatever is killed or changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import warm
from lightwell import LocalEngine, Plan, PlanError, RequestError, Rows, run_batch_job
from lightwell.pipeline.errors import SampleError
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.testing import assert_batch_job, assert_job_resumes
from lightwell.workers.local import rewrite_results
from ray_jobs import files_of
from stage_jobs import BrokenStage, Chain, ChainWithThumbnails, Darkest, Sizes, Trap, plan_in

ENGINE = LocalEngine(num_threads=2)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """23 pictures, one of them cut off, one lost."""
    return plan_in(tmp_path_factory.mktemp("stages"))


class Lines(SilentConsole):
    """Keeps what is printed."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def print(self, line: str) -> None:
        self.lines.append(line)


def stage_names(out: Path) -> list[str]:
    return sorted(path.name.rpartition("-")[0] for path in (out / "stages").iterdir() if path.is_dir())


def test_every_kind_of_source_hands_over_what_it_says(plan: Plan, tmp_path: Path) -> None:
    found = run_batch_job(ChainWithThumbnails(plan), ENGINE, tmp_path / "out")
    index = {row["key"]: row for row in plan.load_index().table.to_pylist()}
    tables = {
        path.parent.name.rpartition("-")[0]: pq.read_table(path)
        for path in tmp_path.glob("out/stages/*/*.parquet")
    }
    sizes = dict(zip(*tables["sizes"].to_pydict().values(), strict=True))
    usable = [key for key in index if key not in ("dog/003.jpg", "cat/006.jpg")]
    assert list(sizes) == usable
    assert all(sizes[key] == Path(index[key]["uri"]).stat().st_size for key in usable)
    colours = tables["colours"].to_pylist()
    assert [row["key"] for row in colours] == usable
    assert [(row["height"], row["width"]) for row in colours] == [
        (index[key]["height"], index[key]["width"]) for key in usable
    ]
    assert (
        found["dark"]
        == [row["key"] for row in colours if row["mean"] < 120]
        == tables["darkest"]["key"].to_pylist()
    )
    assert 0 < len(found["dark"]) < len(usable)
    assert tables["thumbnails"]["key"].to_pylist() == found["dark"]
    assert found["mean"] == pytest.approx(np.mean([row["mean"] for row in colours]))


def test_what_cannot_be_used_is_left_out_counted_and_listed_once(plan: Plan, tmp_path: Path) -> None:
    found = run_batch_job(Chain(plan), ENGINE, tmp_path / "out")
    assert found["counts"] == {"read": 21, "used": 21, "replaced": 0, "skipped": 2}
    assert found["counts"] == json.loads((tmp_path / "out" / "counts.json").read_text())
    assert found["bad"] == [("cat/006.jpg", "read"), ("dog/003.jpg", "read")]
    entries = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert sorted((entry["key"], entry["step"]) for entry in entries) == found["bad"]


def test_a_plan_that_raises_on_errors_stops_at_the_first_bad_file(plan: Plan, tmp_path: Path) -> None:
    strict = plan.model_copy(update={"errors": plan.errors.model_copy(update={"on_error": "raise"})})
    with pytest.raises(SampleError, match=r"cat/006\.jpg"):
        run_batch_job(Chain(strict), ENGINE, tmp_path / "out")


def test_the_contract_holds_with_any_number_of_threads(plan: Plan, tmp_path: Path) -> None:
    others = [LocalEngine(num_threads=1), LocalEngine(num_threads=5, memory_bytes=1 << 20)]
    assert_batch_job(ChainWithThumbnails(plan), ENGINE, tmp_path, others=others)


def test_an_interruption_after_any_item_of_any_stage_changes_nothing(plan: Plan, tmp_path: Path) -> None:
    assert_job_resumes(
        Chain(plan_in(tmp_path, num_images=9)),
        ENGINE,
        tmp_path / "runs",
        outcome=lambda out, result: files_of(out),
    )


def test_another_title_runs_no_stage_and_another_threshold_only_the_last(plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run_batch_job(Chain(plan), ENGINE, out)
    console = Lines()
    second = run_batch_job(Chain(plan, title="Again"), ENGINE, out, console)
    assert second == {**first, "title": "Again"}
    assert [line.partition(":")[0] for line in console.lines] == ["sizes", "colours", "darkest"]
    console = Lines()
    third = run_batch_job(Chain(plan, threshold=100.0), ENGINE, out, console)
    assert [line.partition(":")[0] for line in console.lines] == ["sizes", "colours"]
    assert len(third["dark"]) < len(first["dark"])
    console = Lines()
    assert run_batch_job(Chain(plan), ENGINE, out, console) == first
    assert len(console.lines) == 3, "the records of the first threshold are still there"
    assert stage_names(out) == ["colours", "darkest", "darkest", "sizes"]


def test_a_damaged_stage_and_no_other_is_made_again(plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_batch_job(Chain(plan), ENGINE, out)
    expected = files_of(out)
    (records,) = out.glob("stages/colours-*/records.parquet")
    (out / "colours.parquet").unlink()  # a hard link to it
    records.write_bytes(records.read_bytes()[:-10])
    console = Lines()
    run_batch_job(Chain(plan), ENGINE, out, console)
    assert [line.partition(":")[0] for line in console.lines if "reusing" in line] == ["sizes", "darkest"]
    assert files_of(out) == expected


KILLED = """
import sys
from pathlib import Path
from lightwell import LocalEngine, Plan, run_batch_job
from stage_jobs import Chain, Trap

plan, out, trap, stage, key = sys.argv[1:]
run_batch_job(Chain(Plan.load(plan), trap=Trap(Path(trap), stage, key)), LocalEngine(num_threads=2), out, part_images=4)
"""


@pytest.mark.fault("SIGKILL in each stage of a batch job of three")
def test_a_job_killed_in_each_of_its_stages_ends_with_the_same_bytes(plan: Plan, tmp_path: Path) -> None:
    run_batch_job(Chain(plan), ENGINE, tmp_path / "whole", part_images=4)
    plan.save(tmp_path / "plan.yaml")
    trap = tmp_path / "trap"
    keys = plan.load_index().table["key"].to_pylist()
    for stage, key in (("sizes", keys[21]), ("colours", keys[20]), ("darkest", keys[20]), ("", "")):
        trap.touch()
        done = warm.run(KILLED, tmp_path / "plan.yaml", tmp_path / "out", trap, stage, key)
        assert done.returncode == (-9 if stage else 0), done.stderr
        if stage:
            done_parts = list(tmp_path.glob(f"out/stages/{stage}-*/parts/*"))
            assert done_parts, "expected some of the stage to be done when it is killed"
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_results_are_written_again_without_index_images_or_model(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, num_images=9)
    first = run_batch_job(Chain(plan), ENGINE, tmp_path / "out")
    shutil.rmtree(tmp_path / "photos")
    (tmp_path / "index.parquet").unlink()
    (tmp_path / "out" / "dark.json").unlink()
    before = files_of(tmp_path / "out")
    assert rewrite_results(Chain(plan, title="Again"), ENGINE, tmp_path / "out") == {
        **first,
        "title": "Again",
    }
    after = files_of(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "dark.json").read_text())["title"] == "Again"
    assert before == {name: digest for name, digest in after.items() if name != "dark.json"}


def test_results_cannot_be_written_again_from_a_run_that_was_not_finished(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"expected the records of stage sizes in .*got none"):
        rewrite_results(Chain(plan), ENGINE, tmp_path / "out")


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (
            [{"key": "a", "bytes": 1}],
            "got a list; return",
        ),
        (pa.record_batch({"key": ["a"]}), r"got one of \(key: string\); return"),
        (
            pa.record_batch({"key": ["a"], "bytes": ["x"]}),
            r"got one of \(key: string, bytes: string\); return",
        ),
        (None, "got a NoneType; return"),
    ],
)
def test_other_records_than_the_schema_says_are_refused(
    plan: Plan, tmp_path: Path, records: Any, said: str
) -> None:
    def function(items: Any) -> Any:
        list(items)
        return records

    class Broken(Chain):
        @property
        def stages(self) -> tuple[Any, ...]:
            return (BrokenStage(self.plan, Trap(), function=function),)

    with pytest.raises(
        PlanError,
        match=rf"stage sizes: expected a pyarrow.RecordBatch of \(key: string, bytes: int64\), {said}",
    ):
        run_batch_job(Broken(plan), ENGINE, tmp_path / "out")


def test_records_of_narrower_types_are_cast_to_the_schema(plan: Plan, tmp_path: Path) -> None:
    def function(items: Any) -> pa.RecordBatch:
        keys = [one.key for one in items]
        return pa.record_batch({"key": keys, "bytes": pa.array([1] * len(keys), pa.int8())})

    class Narrow(Chain):
        @property
        def stages(self) -> tuple[Any, ...]:
            return (BrokenStage(self.plan, Trap(), function=function),)

        def finish(self, records: Any, context: Any) -> dict[str, Any]:
            return {"type": str(records["sizes"].schema.field("bytes").type)}

    assert run_batch_job(Narrow(plan), ENGINE, tmp_path / "out") == {"type": "int64"}


def test_a_function_that_leaves_images_unread_is_refused(plan: Plan, tmp_path: Path) -> None:
    class Lazy(Chain):
        @property
        def stages(self) -> tuple[Any, ...]:
            return (
                BrokenStage(
                    self.plan,
                    Trap(),
                    function=lambda items: pa.record_batch({"key": [next(items).key], "bytes": [1]}),
                ),
            )

    with pytest.raises(PlanError, match="expected its function to read every file of a batch"):
        run_batch_job(Lazy(plan), ENGINE, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "Sizes!"}, "expected different names of lower-case letters, digits and '_', got 'Sizes!'"),
        ({"name": "colours"}, "expected different names"),
        (
            {"needs": ("darkest",)},
            r"expected sizes to need stages before it \(there are none\), got 'darkest'",
        ),
    ],
)
def test_stages_that_are_named_or_ordered_wrongly_are_refused_before_anything_runs(
    plan: Plan, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    class Wrong(Chain):
        @property
        def stages(self) -> tuple[Any, ...]:
            first, *others = super().stages
            return type("Changed", (Sizes,), change)(first.plan, first.trap), *others

    with pytest.raises(PlanError, match=said):
        run_batch_job(Wrong(plan), ENGINE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_stage_that_reads_another_that_it_does_not_need_is_refused(plan: Plan, tmp_path: Path) -> None:
    class Careless(Darkest):
        needs = ("sizes",)

        def source(self, inputs: Any) -> Rows:
            return Rows("colours")

    class Wrong(Chain):
        @property
        def stages(self) -> tuple[Any, ...]:
            return *super().stages[:2], Careless(self.threshold, self.trap)

    with pytest.raises(
        PlanError, match=r"stage darkest: expected to read a stage that it needs \(sizes\), got 'colours'"
    ):
        run_batch_job(Wrong(plan), ENGINE, tmp_path / "out")
