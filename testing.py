"""Test assertions for custom engines, policies and jobs, as used in Lightwell's own tests.

They need no test framework and raise ``AssertionError`` with the batch, row and field that differ::

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
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from .pipeline.batch.batch import Batch
    from .pipeline.jobs.contracts import Engine, Feed, Stream, TrainingJob
    from .pipeline.jobs.stages import AnyBatchJob, Inputs, Stage
    from .pipeline.plan.plan import Plan
    from .pipeline.plan.view import View

T = TypeVar("T")
MAX_POSITION_BYTES = 4096


@dataclass(frozen=True, slots=True)
class RowDigest:
    """Contents of one row of a batch, with hashes of the arrays."""

    key: str
    label: int
    replaced: bool
    pixels: str
    mask: str
    boxes: str
    mixed_with: tuple[int, float] | None
    """Label and weight of the mixed-in image."""
    box_labels: str = ""
    keypoints: str = ""
    annotated: tuple[bool | None, ...] = ()
    """Whether the row has a mask, boxes and keypoints; None for kinds that the index lacks."""
    label_sets: tuple[tuple[int, ...] | None, ...] = ()
    """A value for each class, of the image and of the mixed-in image; None without sets of labels."""


@dataclass(frozen=True, slots=True)
class BatchDigest:
    """Contents of a batch, without padding."""

    epoch: int
    step: int
    rows: tuple[RowDigest, ...]


def digest_batch(batch: Batch) -> BatchDigest:
    """Return a digest of a batch; batches with equal digests are bitwise equal."""
    real = batch.without_padding()
    return BatchDigest(real.epoch, real.step, tuple(_row(real, number) for number in range(len(real))))


def digest_feed(feed: Feed) -> list[BatchDigest]:
    """Read a feed to its end, close it and return a digest of each batch."""
    with feed:
        return [digest_batch(batch) for batch in feed]


def assert_same_batches(make_feed_a: Callable[[], Feed], make_feed_b: Callable[[], Feed]) -> None:
    """Assert that two feeds yield the same batches.

    Raises:
        AssertionError: the batches differ, or there are none.
    """
    expected = digest_feed(make_feed_a())
    assert expected, "expected feeds with batches, got one without; check the view"
    _compare(expected, digest_feed(make_feed_b()), "the second feed")


def assert_resumes_everywhere(engine: Engine, plan: Plan, view: View) -> None:
    """Assert that a feed restored after any batch yields the remaining batches and reports the right position.

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
    """Assert that the ranks of a view take the same steps and together read the samples of a single rank.

    Raises:
        AssertionError: they do not, the counts do not add up, or there are no batches.
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
    """Concatenate the rows of all ranks, batch by batch.

    Raises:
        AssertionError: the ranks took different numbers of steps.
    """
    steps = [len(facts) for facts in ranks]
    assert len(set(steps)) == 1, f"expected as many steps on every rank, got {steps}"
    return [
        BatchDigest(slices[0].epoch, slices[0].step, tuple(row for each in slices for row in each.rows))
        for slices in zip(*ranks, strict=True)
    ]


def assert_job_resumes(
    job: AnyBatchJob | TrainingJob,
    engine: Engine,
    folder: Path,
    *,
    outcome: Callable[[Path, Mapping[str, Any]], Any] | None = None,
) -> None:
    """Assert that a job interrupted after any batch, as by Ctrl-C, ends with the same result when it is resumed.

    Args:
        job: a batch job, or a training job that resumes from its output folder.
        engine: the engine to run on.
        folder: an empty folder; each run uses a new subfolder.
        outcome: maps the folder and the return value of a run to the value to compare; must leave out timings (default:
            the return value and, for a batch job, its records).

    Raises:
        AssertionError: an interrupted run ends with another result, or the job reads no batches.
    """
    get_outcome = outcome or _result_and_records
    uninterrupted = folder / "whole"
    expected = get_outcome(uninterrupted, _run(job, engine, uninterrupted, _Console(None)))
    stop_after = 1
    while _is_interrupted(job, engine, folder / f"stopped-{stop_after}", stop_after):
        out = folder / f"stopped-{stop_after}"
        got = get_outcome(out, _run(job, engine, out, _Console(None)))
        assert got == expected, f"interrupted after {stop_after} batches: expected {expected!r}, got {got!r}"
        stop_after += 1
    assert stop_after > 1, (
        "expected a job that reads batches through context.console.track, got one that reads none"
    )


def assert_batch_job(
    job: AnyBatchJob, engine: Engine, folder: Path, *, others: Sequence[Engine] = ()
) -> None:
    """Assert that a batch job keeps its contract: picklable, with stable fingerprints, done once, the same on every engine.

    Args:
        job: the job; some of its images should be readable.
        engine: the engine to run on.
        folder: an empty folder; each run uses a new subfolder.
        others: engines that must leave the same files, such as a Ray engine.

    Raises:
        AssertionError: it does not; the message names the stage or the file.
        PlanError: stages are named wrongly, or return other records than their schemas say.
    """
    from .pipeline.jobs.stages import stage_keys, stages_of
    from .workers.local import run_batch_job

    keys = stage_keys(stages_of(job))
    for stage in stages_of(job):
        assert pickle.dumps(stage), "sent to workers"
    for name, key in stage_keys(stages_of(job)).items():
        assert key == keys[name], f"stage {name}: expected a stable fingerprint, got {keys[name]} and {key}"
    expected = dict(run_batch_job(job, engine, folder / "first"))
    files = _digest_files(folder / "first")
    again = dict(run_batch_job(job, _Finished(engine), folder / "first"))
    assert again == expected, f"finished again from the same records: expected {expected!r}, got {again!r}"
    _compare_files(files, _digest_files(folder / "first"), "finished again")
    for number, other in enumerate(others, 2):
        out = folder / f"engine-{number}"
        found = dict(run_batch_job(job, other, out))
        assert found == expected, f"{other}: expected {expected!r}, got {found!r}"
        _compare_files(files, _digest_files(out), str(other))


@dataclass(frozen=True)
class _Finished:
    """Engine for a job whose stages are all finished."""

    engine: Engine

    def feed(self, plan: Plan, view: View, position: Mapping[str, Any] | None = None) -> Feed:
        """Open a feed, for ``finish``."""
        return self.engine.feed(plan, view, position)

    def open_stage(self, stage: Stage, inputs: Inputs, position: Mapping[str, Any] | None = None) -> NoReturn:  # noqa: ARG002
        """Raise AssertionError."""
        raise AssertionError(
            f"stage {stage.name}: expected its records to be reused, got another fingerprint on the second run; hash only "
            "what determines the records"
        )


def _digest_files(out: Path) -> dict[str, str]:
    """Hash all files of a run but its manifest."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and not path.name.startswith(".lightwell")
    }


def _compare_files(expected: Mapping[str, str], got: Mapping[str, str], where: str) -> None:
    differing = sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))
    assert not differing, f"{where}: expected the same files, got other bytes in {', '.join(differing)}"


class _Console:
    """Console without output that raises KeyboardInterrupt after a number of batches."""

    def __init__(self, stop_after: int | None) -> None:
        self._left = stop_after

    def print(self, line: str) -> None:
        """Print nothing."""

    def track(self, batches: Stream[T], label: str) -> Iterator[T]:  # noqa: ARG002
        """Yield batches, then raise KeyboardInterrupt."""
        for batch in batches:
            if self._left == 0:
                raise KeyboardInterrupt
            self._left = None if self._left is None else self._left - 1
            yield batch


def _is_interrupted(job: AnyBatchJob | TrainingJob, engine: Engine, out: Path, stop_after: int) -> bool:
    try:
        _run(job, engine, out, _Console(stop_after))
    except KeyboardInterrupt:
        return True
    return False


def _run(job: AnyBatchJob | TrainingJob, engine: Engine, out: Path, console: _Console) -> Mapping[str, Any]:
    from .pipeline.jobs.contracts import TrainingJob
    from .workers.local import run_batch_job, run_training_job

    if isinstance(job, TrainingJob):
        return run_training_job(job, engine, out, console)
    return run_batch_job(job, engine, out, console, part_images=1)


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
        tuple(
            None if sets is None else tuple(sets[number].tolist())
            for sets in (batch.label_sets, batch.mixed_label_sets)
        ),
    )


def _digest(array: Any) -> str:
    digest = hashlib.blake2b(f"{array.dtype}{array.shape}".encode(), digest_size=16)
    digest.update(array.tobytes())
    return digest.hexdigest()


def _compare(expected: Sequence[BatchDigest], got: Sequence[BatchDigest], feed: str) -> None:
    """Assert equality; name the first difference."""
    for mine, other_batch in zip(expected, got, strict=False):
        place = f"{feed}, epoch {mine.epoch}, step {mine.step}"
        assert (other_batch.epoch, other_batch.step) == (mine.epoch, mine.step), (
            f"{place}: expected this batch, got epoch {other_batch.epoch}, step {other_batch.step}"
        )
        for number, (row, other) in enumerate(zip(mine.rows, other_batch.rows, strict=False)):
            wrong = [field.name for field in _differing(row, other)]
            shown = "; ".join(
                f"expected {name} {getattr(row, name)!r}, got {getattr(other, name)!r}" for name in wrong
            )
            assert not wrong, f"{place}, row {number} ({row.key!r}): {shown}"
        assert len(other_batch.rows) == len(mine.rows), (
            f"{place}: expected {len(mine.rows)} rows, got {len(other_batch.rows)}"
        )
    assert len(got) == len(expected), f"{feed}: expected {len(expected)} batches, got {len(got)}"


def _differing(row: RowDigest, other: RowDigest) -> Iterable[Any]:
    return (field for field in fields(row) if getattr(row, field.name) != getattr(other, field.name))
