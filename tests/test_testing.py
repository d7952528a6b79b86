"""The shipped checks: they pass what keeps the laws and say where what does not breaks them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pyarrow as pa
import pytest
from lightwell.pipeline.batch.batch import Batch
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.contracts import Context
from lightwell.pipeline.plan.plan import BatchOptions, Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine, LocalFeed
from lightwell.testing import (
    assert_job_resumes,
    assert_ranks_add_up,
    assert_resumes_everywhere,
    assert_same_batches,
)
from pictures import make_folder

ENGINE = LocalEngine(num_threads=1)
VIEW = View(shuffle=True, augment=True)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("kit")
    shares = {"train": 0.5, "val": 0.25, "test": 0.25}
    build_index(make_folder(folder / "photos", num_images=20), fractions=shares).save(
        folder / "index.parquet"
    )
    content = {"index": folder / "index.parquet", "batch": {"size": 4}}
    return Plan.model_validate({**content, "preprocess": [A.Resize(32, 32)], "augment": [A.HorizontalFlip()]})


class Forgetful(LocalEngine):
    """Starts anew whatever position it is given."""

    def feed(self, plan: Plan, view: View, position: Mapping[str, Any] | None = None) -> LocalFeed:
        return super().feed(plan, view)


class Hasty(LocalEngine):
    """Says that it stands a batch further than its consumer."""

    def feed(self, plan: Plan, view: View, position: Mapping[str, Any] | None = None) -> LocalFeed:
        feed = super().feed(plan, view, position)
        ahead = feed.position
        feed.position = lambda: {**ahead(), "step": ahead()["step"] + 1}  # type: ignore[method-assign]
        return feed


class Deaf(LocalEngine):
    """Gives every rank the whole batch."""

    def feed(self, plan: Plan, view: View, position: Mapping[str, Any] | None = None) -> LocalFeed:
        return super().feed(plan, replace(view, rank=0, num_ranks=1), position)


def test_the_local_engine_passes_every_check(plan: Plan) -> None:
    assert_same_batches(lambda: ENGINE.feed(plan, VIEW), lambda: LocalEngine(num_threads=3).feed(plan, VIEW))
    assert_resumes_everywhere(ENGINE, plan, VIEW)
    assert_ranks_add_up(ENGINE, plan, VIEW, num_ranks=2)


def test_a_difference_is_named_by_batch_row_and_field(plan: Plan) -> None:
    other = plan.model_copy(update={"augment": ()})
    with pytest.raises(
        AssertionError, match=r"the second feed, epoch 0, step 0, row \d \('.*'\): expected pixels"
    ):
        assert_same_batches(lambda: ENGINE.feed(plan, VIEW), lambda: ENGINE.feed(other, VIEW))
    longer = replace(VIEW, num_epochs=2)
    with pytest.raises(AssertionError, match="expected 5 batches, got 10"):
        assert_same_batches(lambda: ENGINE.feed(plan, VIEW), lambda: ENGINE.feed(plan, longer))


def test_an_engine_that_forgets_positions_is_found(plan: Plan) -> None:
    with pytest.raises(AssertionError, match="restored after 1 batches: expected num_batches to be 4, got 5"):
        assert_resumes_everywhere(Forgetful(num_threads=1), plan, VIEW)


def test_an_engine_that_counts_what_its_consumer_never_had_is_found(plan: Plan) -> None:
    with pytest.raises(AssertionError, match="restored after 0 batches: expected num_batches"):
        assert_resumes_everywhere(Hasty(num_threads=1), plan, VIEW)


def test_an_engine_that_gives_ranks_the_same_rows_is_found(plan: Plan) -> None:
    with pytest.raises(AssertionError, match="the union of 2 ranks, epoch 0, step 0: expected 4 rows, got 8"):
        assert_ranks_add_up(Deaf(num_threads=1), plan, VIEW, num_ranks=2)


def test_a_view_that_proves_nothing_is_refused(plan: Plan) -> None:
    small = plan.model_copy(update={"batch": BatchOptions(size=64)})
    with pytest.raises(AssertionError, match="expected a view of at least two batches, got 1; lower batch"):
        assert_resumes_everywhere(ENGINE, small, VIEW)


@dataclass(frozen=True)
class Brightness:
    """A batch job; ``carries`` makes its records depend on how many batches this process has seen."""

    plan: Plan
    carries: bool = False
    view: View = VIEW
    seen: list[int] = field(default_factory=list)
    schema = pa.schema({"key": pa.string(), "sum": pa.int64()})

    def fingerprint(self) -> str:
        return self.plan.fingerprint()

    @contextmanager
    def open(self) -> Iterator[Any]:
        count = 0

        def work(batch: Batch) -> pa.RecordBatch:
            nonlocal count
            count += self.carries
            sums = batch.images.int().sum(dim=(1, 2, 3)).numpy() + count
            return pa.record_batch({"key": batch.keys, "sum": sums}, schema=self.schema)

        yield work

    def finish(self, records: Any, context: Context) -> dict[str, Any]:
        return {"sum": int(np.sum(records["sum"].to_numpy())), **context.counts}


def test_a_batch_job_that_resumes_passes_even_shuffled(plan: Plan, tmp_path: Path) -> None:
    assert_job_resumes(Brightness(plan), ENGINE, tmp_path)
    assert len(list(tmp_path.iterdir())) == 6  # the whole run, four that were interrupted, one that was not


def test_a_batch_job_whose_records_depend_on_the_run_is_found(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="interrupted after 1 batches: expected"):
        assert_job_resumes(Brightness(plan, carries=True), ENGINE, tmp_path)


def test_the_checks_need_no_test_framework() -> None:
    code = "import sys, lightwell.testing; print('pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
