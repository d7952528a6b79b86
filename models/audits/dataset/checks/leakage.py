"""Images of an evaluation split of which the training split has a copy, a near duplicate or a shot of the same scene."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .....pipeline.errors import RequestError
from .....pipeline.text import quoted
from ...findings.finding import MAX_KEYS, Advice, Effect, Finding, Null, finding_id
from ...findings.intervals import bootstrap_difference, wilson
from ..severity import severity_of
from .duplicate_groups import DuplicateGroups, groups_of, training_split
from .exact_duplicates import exact_groups
from .near_duplicates import near_groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..dataset_table import DatasetTable

MAX_SAME_TIME = 20
"""Images of one camera and second; more have a date that an editor or a reset clock wrote."""


@dataclass(frozen=True)
class Leaks:
    """Groups of images that belong into one split, by how they were found; each is of any split."""

    exact: DuplicateGroups
    near: DuplicateGroups
    by_key: DuplicateGroups
    """Images with the same group key."""
    key_name: str
    """What the group key is, in words."""


@dataclass(frozen=True)
class RestatedScore:
    """Accuracy on an evaluation split with and without its leaked images."""

    num_leaked: int
    every: float
    without: float
    change: Effect
    """Accuracy without the leaked images minus that on all, with a bootstrap interval."""


def find_leaks(
    table: DatasetTable,
    group_column: str | None = None,
    *,
    exact: DuplicateGroups | None = None,
    near: DuplicateGroups | None = None,
) -> Leaks:
    """Return the groups that have to stay in one split.

    Args:
        table: of the dataset.
        group_column: column of ``table.files`` with the patient, place or series of an image; by default images that one
            camera took in the same second are a group.
        exact: of `exact_groups`; None finds them.
        near: of `near_groups`; None finds them.

    Raises:
        RequestError: the table has no such column.
    """
    if group_column is not None:
        if group_column not in table.files:
            raise RequestError(
                f"expected one of {', '.join(sorted(table.files))} as the column of groups, got {quoted(group_column)}; "
                "name a column of the index"
            )
        keyed, name = _groups_by([table.files[group_column]]), group_column
    else:
        columns = [table.files[name] for name in ("exif_camera", "exif_date") if name in table.files]
        keyed, name = _groups_by(columns if len(columns) == 2 else []), "camera and time"
        sizes = np.bincount(keyed.numbers + 1)
        keyed = groups_of(np.where(sizes[keyed.numbers + 1] <= MAX_SAME_TIME, keyed.numbers, -1))
    empty = DuplicateGroups(np.full(len(table), -1, np.int64))
    keyed = keyed if len(keyed.numbers) == len(table) else empty
    exact = exact_groups(table) if exact is None else exact
    return Leaks(exact, near_groups(table) if near is None else near, keyed, name)


def find_leakage(
    table: DatasetTable,
    leaks: Leaks | None = None,
    correct: NDArray[np.float64] | None = None,
) -> list[Finding]:
    """Return a finding for each evaluation split and way in which its images are known from training.

    Args:
        table: of the dataset.
        leaks: of `find_leaks`.
        correct: of `correct_predictions`; then the findings state the accuracy without the leaked images.
    """
    training = training_split(table)
    if training is None:
        return []
    leaks = find_leaks(table) if leaks is None else leaks
    in_training = np.asarray([name == training for name in table.splits])
    found = []
    for split in sorted({str(name) for name in table.splits if name is not None} - {training}):
        in_split = np.asarray([name == split for name in table.splits])
        earlier = np.zeros(len(table), np.bool_)
        for subject, phrase, groups in _ways(leaks):
            leaked = in_split & ~earlier & _shared(groups, in_training)
            earlier |= leaked
            if leaked.any():
                names = (split, training, subject, phrase)
                found.append(_finding(table, names, groups, (leaked, in_split, in_training), correct))
    return found


def leak_id(split: str, way: str) -> str:
    """Return the id of the finding about a split; the way is ``copy``, ``near duplicate`` or the name of the group key."""
    return finding_id("leakage", f"{split} {way}")


def leaked_rows(table: DatasetTable, leaks: Leaks, split: str) -> NDArray[np.bool_]:
    """Return which rows are of a split and of a group of which the training split has images."""
    in_training = np.asarray([name == training_split(table) for name in table.splits], np.bool_)
    shared = np.any([_shared(groups, in_training) for _, _, groups in _ways(leaks)], axis=0)
    return np.asarray(shared & np.asarray([name == split for name in table.splits]), np.bool_)


def correct_predictions(
    table: DatasetTable, keys: NDArray[np.object_], right: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return 1 for images that a model predicts correctly, 0 for wrongly and NaN for those without prediction.

    Args:
        table: of the dataset.
        keys: of the labelled images with a prediction.
        right: whether each is correct.
    """
    found = dict(zip(keys.tolist(), right.tolist(), strict=True))
    return np.asarray([found.get(key, np.nan) for key in table.keys.tolist()], np.float64)


def restated_score(
    correct: NDArray[np.float64], leaked: NDArray[np.bool_], generator: np.random.Generator
) -> RestatedScore | None:
    """Compare the accuracy on all images of a split with that on the images that are not leaked.

    The two differ by the share of leaked images times the difference in accuracy between leaked and other images; the
    interval is that of this difference, resampled within both.

    Args:
        correct: of the images of the split; NaN for images without prediction.
        leaked: which of them are.
        generator: of the bootstrap.

    Returns:
        None if no leaked or no other image has a prediction.
    """
    has_prediction = ~np.isnan(correct)
    known, others = correct[has_prediction & leaked], correct[has_prediction & ~leaked]
    interval = bootstrap_difference(others, known, generator)
    if interval is None:
        return None
    share = len(known) / (len(known) + len(others))
    every = float(np.concatenate([known, others]).mean())
    without = float(others.mean())
    change = Effect(without - every, "accuracy", share * interval[0], share * interval[1])
    return RestatedScore(len(known), every, without, change)


def _ways(leaks: Leaks) -> Iterator[tuple[str, str, DuplicateGroups]]:
    yield "copy", "exact copies in", leaks.exact
    yield "near duplicate", "near duplicates in", leaks.near
    yield leaks.key_name, f"the same {leaks.key_name} as images of", leaks.by_key


def _shared(groups: DuplicateGroups, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the rows of groups that have one of the given rows."""
    has_row = np.zeros(groups.count + 1, np.bool_)
    has_row[groups.numbers[rows]] = True
    return np.asarray(has_row[groups.numbers] & (groups.numbers >= 0), np.bool_)


def _groups_by(columns: list[NDArray[np.object_]]) -> DuplicateGroups:
    """Return groups of rows with equal values of all columns; rows with None in one have no group."""
    numbers: dict[tuple[object, ...], int] = {}
    values = [
        -1 if any(value is None for value in row) else numbers.setdefault(row, len(numbers))
        for row in zip(*(column.tolist() for column in columns), strict=True)
    ]
    return groups_of(np.asarray(values, np.int64))


def _finding(
    table: DatasetTable,
    names: tuple[str, str, str, str],
    groups: DuplicateGroups,
    rows: tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]],
    correct: NDArray[np.float64] | None,
) -> Finding:
    split, training, subject, phrase = names
    leaked, in_split, in_training = rows
    count, total = int(leaked.sum()), int(in_split.sum())
    low, high = wilson(count, total) or (None, None)
    sentence = f"{count:,} of {total:,} images of {split} have {phrase} {training}."
    if correct is not None:
        score = restated_score(
            correct[in_split], leaked[in_split], table.generator(f"leakage {split} {subject}")
        )
        if score is not None:
            sentence += (
                f" Without them the accuracy is {100 * score.without:.1f} % instead of {100 * score.every:.1f} % "
                f"({100 * score.change.value:+.1f} points, {100 * (score.change.low or 0):+.1f} to "
                f"{100 * (score.change.high or 0):+.1f})."
            )
    is_copy = subject in {"copy", "near duplicate"}
    advice = (
        f"Drop the images of {training}, as fixes.csv does; scores on {split} are too high otherwise."
        if is_copy
        else f"Keep images with the same {subject} in one split; fixes.csv moves them."
    )
    own = np.flatnonzero(leaked)[:MAX_KEYS]
    originals = [int(np.argmax(in_training & (groups.numbers == number))) for number in groups.numbers[own]]
    return Finding(
        id=leak_id(split, subject),
        kind="leakage",
        severity=severity_of("leakage", "copies" if is_copy else "groups", count / total),
        class_name=None,
        class_number=-1,
        group=f"split = {split}",
        sentence=sentence,
        effect=Effect(count / total, "share of images", low, high),
        null=Null(None),
        num_images=total,
        num_concerned=count,
        keys=table.keys_of(own),
        other_keys=table.keys_of(originals),
        advice=Advice(advice),
    )
