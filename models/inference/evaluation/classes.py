"""Classes of an index as outputs of a checkpoint, matched by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....pipeline.errors import PlanError
from ....pipeline.index.index import Index
from ....pipeline.text import first_few
from ..outputs import SEVERAL_CLASSES


def check_kind_of_labels(index: Index, task: str) -> None:
    """Check that images have sets of labels where a checkpoint predicts sets, and otherwise a label.

    Raises:
        PlanError: they have the other kind.
    """
    if index.is_multi_label != (task == SEVERAL_CLASSES):
        kinds = ("one class per image", "sets of labels (column 'labels')")
        expected, got = kinds[task == SEVERAL_CLASSES], kinds[index.is_multi_label]
        raise PlanError(
            f"index: expected {expected}, as the checkpoint of the task {task!r} was trained on, got {got}; index the images again "
            "with such labels, or use `lightwell predict`"
        )


def output_numbers(index_classes: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Return the checkpoint's output of each class of an index: int64, -1 for none.

    Raises:
        PlanError: no class of the index is one of the checkpoint.
    """
    outputs = {name: number for number, name in enumerate(classes)}
    numbers = np.asarray([outputs.get(name, -1) for name in index_classes], dtype=np.int64)
    if not (numbers >= 0).any():
        raise PlanError(
            f"classes: expected some of the checkpoint's ({first_few([*map(repr, classes)])}), got "
            f"{first_few([*map(repr, index_classes)]) or 'no labels'}; label the images with these names, or use "
            "`lightwell predict` for images without labels"
        )
    return numbers


def match_labels(
    labels: np.ndarray, index_classes: Sequence[str], classes: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """Translate labels of an index to outputs of a checkpoint by name; returns them and notes on the differences.

    Raises:
        PlanError: no class of the index is one of the checkpoint.
    """
    numbers = output_numbers(index_classes, classes)
    unknown = np.flatnonzero(numbers < 0).tolist()
    notes = []
    if unknown:
        names = first_few([repr(index_classes[number]) for number in unknown], 5)
        notes.append(
            f"{int(np.isin(labels, unknown).sum()):,} images of {names} are not evaluated: no such output"
        )
    return np.append(numbers, -1)[labels], notes


def match_label_sets(
    label_sets: np.ndarray, index_classes: Sequence[str], classes: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """Translate sets of labels to outputs of a checkpoint by name.

    Args:
        label_sets: int8, shape (N, classes of the index): 1, 0, or -1 in the row of an unlabelled image.
        index_classes: names of its columns.
        classes: outputs of the checkpoint.

    Returns:
        int8, shape (N, outputs), with -1 also for outputs that the index does not have; and notes on the differences.

    Raises:
        PlanError: no class of the index is one of the checkpoint.
    """
    numbers = output_numbers(index_classes, classes)
    known = numbers >= 0
    matched = np.full((len(label_sets), len(classes)), -1, np.int8)
    matched[:, numbers[known]] = label_sets[:, known]
    notes = []
    for names, what in (
        ([index_classes[number] for number in np.flatnonzero(~known).tolist()], "no such output"),
        ([name for name in classes if name not in set(index_classes)], "not in the index"),
    ):
        if names:
            notes.append(f"{first_few([*map(repr, names)], 5)}: not evaluated, as {what}")
    return matched, notes
