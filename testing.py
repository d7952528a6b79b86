"""Checks for engines, policies and jobs of your own: the laws that Lightwell's own tests hold theirs to.

They need no test framework and raise ``AssertionError``, which says which batch, row and field differ::

    from lightwell.testing import assert_resumes_everywhere, assert_same_batches

    def test_my_transform_does_not_depend_on_threads():
        assert_same_batches(
            lambda: LocalEngine(num_threads=1).feed(plan, view), lambda: LocalEngine(num_threads=4).feed(plan, view)
        )

    def test_my_engine_resumes():
        assert_resumes_everywhere(MyEngine(), plan, view)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .pipeline.batch.batch import Batch
    from .pipeline.jobs.contracts import BatchJob, Engine, Feed, Stream, TrainingJob
    from .pipeline.plan.plan import Plan
    from .pipeline.plan.view import View

T = TypeVar("T")
MAX_POSITION_BYTES = 4096


@dataclass(frozen=True, slots=True)
class RowDigest:
    """All that is known of one row of a batch; what is large as its hash."""

    key: str
    label: int
    replaced: bool
    pixels: str
    mask: str
    boxes: str
    mixed_with: tuple[int, float] | None
    """Label and share of the image that was mixed in."""
    box_labels: str = ""
    keypoints: str = ""
    annotated: tuple[bool | None, ...] = ()
    """Whether there are a mask, boxes and keypoints; None for what the index does not have."""


@dataclass(frozen=True, slots=True)
class BatchDigest:
    """All that is known of a batch; padding left out."""

    epoch: int
    step: int
    rows: tuple[RowDigest, ...]


def digest_batch(batch: Batch) -> BatchDigest:
    """Note what a batch holds; equal facts mean equal batches, to the last bit of every pixel."""
    real = batch.without_padding()
    return BatchDigest(real.epoch, real.step, tuple(_row(real, number) for number in range(len(real))))


def digest_feed(feed: Feed) -> list[BatchDigest]:
    """Read a feed to its end and close it."""
    with feed:
        return [digest_batch(batch) for batch in feed]


def assert_same_batches(make_feed_a: Callable[[], Feed], make_feed_b: Callable[[], Feed]) -> None:
    """Check that two ways of opening a feed give the same batches.

    Raises:
        AssertionError: they do not, or there are none.
    """
    expected = digest_feed(make_feed_a())
    assert expected, "expected feeds with batches, got one without; check the view"
    _compare(expected, digest_feed(make_feed_b()), "the second feed")


def assert_resumes_everywhere(engine: Engine, plan: Plan, view: View) -> None:
    """Check that a feed that is restored after any batch gives the batches that were left, and stands where it says.

    Raises:
        AssertionError: it does not, the view has fewer than two batches, or a position is not a small JSON value.
    """
    expected: list[BatchDigest] = []
    with engine.feed(plan, view) as feed:
        positions = [_through_json(feed)]
        for batch in feed:
            expected.append(digest_batch(batch))
            positions.append(_through_json(feed))
    assert len(expected) > 1, (
        f"expected a view of at least two batches, got {len(expected)}; lower batch.size"
    )
    for done, position in enumerate(positions):
        feed = engine.feed(plan, view, position)
        place = f"the feed restored after {done} batches"
        left = len(expected) - done
        assert feed.num_batches == left, f"{place}: expected num_batches to be {left}, got {feed.num_batches}"
        assert feed.position() == position, f"{place}: expected position {position}, got {feed.position()}"
        _compare(expected[done:], digest_feed(feed), place)


def assert_ranks_add_up(engine: Engine, plan: Plan, view: View, *, num_ranks: int) -> None:
    """Check that the ranks of a view take the same steps and together read what one rank reads alone.

    Raises:
        AssertionError: they do not, the counts do not add up, or there is no batch.
    """
    alone = engine.feed(plan, replace(view, rank=0, num_ranks=1))
    expected = digest_feed(alone)
    assert expected, "expected a view with batches, got none"
    feeds = [engine.feed(plan, replace(view, rank=rank, num_ranks=num_ranks)) for rank in range(num_ranks)]
    _compare(expected, merge_ranks([digest_feed(feed) for feed in feeds]), f"the union of {num_ranks} ranks")
    for name in ("read", "used", "replaced", "skipped"):
        counts = [feed.counts[name] for feed in feeds]
        assert sum(counts) == alone.counts[name], (
            f"expected the ranks' counts of {name} to add up to {alone.counts[name]}, got {counts}"
        )


def merge_ranks(ranks: Sequence[Sequence[BatchDigest]]) -> list[BatchDigest]:
    """Join what ranks read, batch by batch.

    Raises:
        AssertionError: they took different numbers of steps.
    """
    steps = [len(facts) for facts in ranks]
    assert len(set(steps)) == 1, f"expected as many steps on every rank, got {steps}"
    return [
        BatchDigest(slices[0].epoch, slices[0].step, tuple(row for each in slices for row in each.rows))
        for slices in zip(*ranks, strict=True)
    ]


def assert_job_resumes(
    job: BatchJob | TrainingJob,
    engine: Engine,
    folder: Path,
    *,
    outcome: Callable[[Path, Mapping[str, Any]], Any] | None = None,
) -> None:
    """Interrupt a job after every batch, as Ctrl-C does, run it again and compare how it ends.

    Args:
        job: a batch job, or a training job that goes on from what it left in its folder.
        engine: what it runs on.
        folder: an empty folder; every run gets one of its own below it.
        outcome: from a run's folder and what it returned to what has to be equal; leave out what is measured in
            seconds. By default all that was returned and, of a batch job, its records.

    Raises:
        AssertionError: a run that was interrupted ends in another way, or the job reads no batch.
    """
    judge = outcome or _result_and_records
    whole = folder / "whole"
    expected = judge(whole, _run(job, engine, whole, _Console(None)))
    stop_after = 1
    while _is_interrupted(job, engine, folder / f"stopped-{stop_after}", stop_after):
        out = folder / f"stopped-{stop_after}"
        got = judge(out, _run(job, engine, out, _Console(None)))
        assert got == expected, f"interrupted after {stop_after} batches: expected {expected!r}, got {got!r}"
        stop_after += 1
    assert stop_after > 1, (
        "expected a job that reads batches through context.console.track, got one that reads none"
    )


class _Console:
    """Silent; interrupts where the next batch is asked for after a number of them."""

    def __init__(self, stop_after: int | None) -> None:
        self._left = stop_after

    def print(self, line: str) -> None:
        """Say nothing."""

    def track(self, batches: Stream[T], label: str) -> Iterator[T]:  # noqa: ARG002
        """Pass batches on until it is time to stop."""
        for batch in batches:
            if self._left == 0:
                raise KeyboardInterrupt
            self._left = None if self._left is None else self._left - 1
            yield batch


def _is_interrupted(job: BatchJob | TrainingJob, engine: Engine, out: Path, stop_after: int) -> bool:
    try:
        _run(job, engine, out, _Console(stop_after))
    except KeyboardInterrupt:
        return True
    return False


def _run(job: BatchJob | TrainingJob, engine: Engine, out: Path, console: _Console) -> Mapping[str, Any]:
    from .pipeline.jobs.contracts import BatchJob
    from .workers.local import run_batch_job, run_training_job

    if isinstance(job, BatchJob):
        return run_batch_job(job, engine, out, console, part_images=1)
    return run_training_job(job, engine, out, console)


def _result_and_records(out: Path, result: Mapping[str, Any]) -> Any:
    import pyarrow.parquet as pq

    records = out / "records.parquet"
    return dict(result), pq.read_table(records).to_pylist() if records.exists() else None


def _through_json(feed: Feed) -> dict[str, Any]:
    text = json.dumps(feed.position())
    assert len(text) <= MAX_POSITION_BYTES, (
        f"expected a position of at most {MAX_POSITION_BYTES} bytes, got {len(text)}"
    )
    position: dict[str, Any] = json.loads(text)
    return position


def _row(batch: Batch, number: int) -> RowDigest:
    mixed_with = None
    if batch.mixed_labels is not None and batch.mixed_weights is not None:
        mixed_with = int(batch.mixed_labels[number]), float(batch.mixed_weights[number])
    return RowDigest(
        batch.keys[number],
        int(batch.labels[number]),
        bool(batch.replaced[number]),
        _digest(batch.images[number].cpu().numpy()),
        "" if batch.masks is None else _digest(batch.masks[number].cpu().numpy()),
        "" if batch.boxes is None else _digest(batch.boxes[number]),
        mixed_with,
        "" if batch.box_labels is None else _digest(batch.box_labels[number]),
        "" if batch.keypoints is None else _digest(batch.keypoints[number]),
        tuple(
            None if flags is None else bool(flags[number])
            for flags in (batch.has_mask, batch.has_boxes, batch.has_keypoints)
        ),
    )


def _digest(array: Any) -> str:
    digest = hashlib.blake2b(f"{array.dtype}{array.shape}".encode(), digest_size=16)
    digest.update(array.tobytes())
    return digest.hexdigest()


def _compare(expected: Sequence[BatchDigest], got: Sequence[BatchDigest], who: str) -> None:
    """Name the first difference."""
    for mine, theirs in zip(expected, got, strict=False):
        place = f"{who}, epoch {mine.epoch}, step {mine.step}"
        assert (theirs.epoch, theirs.step) == (mine.epoch, mine.step), (
            f"{place}: expected this batch, got epoch {theirs.epoch}, step {theirs.step}"
        )
        for number, (row, other) in enumerate(zip(mine.rows, theirs.rows, strict=False)):
            wrong = [field.name for field in _differing(row, other)]
            shown = "; ".join(
                f"expected {name} {getattr(row, name)!r}, got {getattr(other, name)!r}" for name in wrong
            )
            assert not wrong, f"{place}, row {number} ({row.key!r}): {shown}"
        assert len(theirs.rows) == len(mine.rows), (
            f"{place}: expected {len(mine.rows)} rows, got {len(theirs.rows)}"
        )
    assert len(got) == len(expected), f"{who}: expected {len(expected)} batches, got {len(got)}"


def _differing(row: RowDigest, other: RowDigest) -> Iterable[Any]:
    return (field for field in fields(row) if getattr(row, field.name) != getattr(other, field.name))
