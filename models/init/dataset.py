"""What an index holds, as far as a first plan and its jobs depend on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ...pipeline.index.index import Index
from ...pipeline.index.splits import DEFAULT_FRACTIONS, assign_splits, canonical_split

IMBALANCED = 3.0
"""Images of the largest class for one of the smallest, from which on classes are weighed."""
FEW = 20
"""Images of a split below which its figures mean little."""
SMALL = 1.5
"""So many times an image is enlarged where a note says so."""
LONG = 2.0
"""Width for a height, or the reverse, from which on a centre crop loses half of the image."""
TABLES, ANNOTATIONS = (".csv", ".parquet"), (".xml", ".json", ".txt")
MAX_SEEDS, MAX_HASHES = 1000, 200_000
"""How many seeds are tried for a split, and how many keys are hashed for it at most."""


@dataclass(frozen=True)
class Splits:
    """Which splits of an index a training and an audit read."""

    train: str
    validation: str
    test: str | None

    @property
    def audited(self) -> str:
        """The one that is audited: the test split, or validation where there is none."""
        return self.test or self.validation


class Dataset:
    """The usable images of an index, their classes and splits.

    Args:
        index: what was found.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        usable = pc.fill_null(pc.equal(index.table["status"], "ok"), False)
        self._table = index.table.filter(usable)

    @property
    def has_boxes(self) -> bool:
        """Whether images have boxes."""
        return bool(pc.sum(pc.list_value_length(self._table["boxes"])).as_py())

    @property
    def has_masks(self) -> bool:
        """Whether images have masks."""
        return bool(self._table["mask"].null_count < self._table.num_rows)

    @property
    def has_keypoints(self) -> bool:
        """Whether images have keypoints."""
        return bool(pc.sum(pc.list_value_length(self._table["keypoints"])).as_py())

    @property
    def is_annotated(self) -> bool:
        """Whether a plan has to keep all of an image, since annotations lie anywhere in it."""
        return self.has_boxes or self.has_masks or self.has_keypoints

    @cached_property
    def counts(self) -> Mapping[str, np.ndarray]:
        """Labelled images of each split by class."""
        labels = self._table["label"].to_numpy()
        names = np.asarray(["" if name is None else name for name in self._table["split"].to_pylist()])
        num = len(self.index.classes)
        return {
            str(name): np.bincount(labels[(names == name) & (labels >= 0)], minlength=num)
            for name in dict.fromkeys(names.tolist())
            if name
        }

    @property
    def splits(self) -> Splits | None:
        """The splits that a classifier is trained and measured on; None where there are not two with labels."""
        labelled = [name for name, counts in self.counts.items() if counts.sum()]
        train, validation, test = (_meaning(labelled, name) for name in ("train", "val", "test"))
        if train is None or (validation is None and test is None):
            return None
        if validation is None:
            assert test is not None
            return Splits(train, test, None)
        return Splits(train, validation, test)

    @property
    def obstacle(self) -> str | None:
        """Say why no classifier can be trained, and what would help; None where one can."""
        if self.index.is_multi_label:
            return "images have several classes each, and `lightwell train` takes one class for each image"
        labelled = [
            name
            for number, name in enumerate(self.index.classes)
            if sum(counts[number] for counts in self.counts.values())
        ]
        if not labelled:
            return self._obstacle_of_labels()
        if len(labelled) == 1:
            return f"all images are of one class, {labelled[0]!r}, and a classifier needs two to tell apart{self._hint()}"
        return self._obstacle_of_splits()

    def _obstacle_of_labels(self) -> str:
        kinds = {"boxes": self.has_boxes, "masks": self.has_masks, "keypoints": self.has_keypoints}
        found = " and ".join(name for name, there in kinds.items() if there)
        if found:
            return (
                f"images have {found} and no class of their own, and `lightwell train` trains classifiers; the plan makes "
                f"batches with {found} for a model of yours"
            )
        return (
            "no image has a class; put the images into a folder for each class, as in photos/cat and photos/dog, or "
            f"list them in a table with the columns path and label{self._hint()}"
        )

    def _hint(self) -> str:
        """Name a table or annotations among the files that were left out, in case they hold the classes."""
        source = self.index.source
        examples = [
            str(name)
            for remark in source.get("remarks", ())
            if remark["kind"] == "left_out"
            for name in remark["examples"]
        ]
        for name in examples:
            if name.endswith(TABLES):
                return f"; {name!r} lies there: if it says which is which, give it in place of the folder"
        for name in examples:
            if name.endswith(ANNOTATIONS):
                return f"; {name!r} lies there: if it holds boxes, say how by --annotations coco, yolo or voc"
        return ""

    def _obstacle_of_splits(self) -> str | None:
        splits = self.splits
        if splits is None:
            return self._obstacle_without_splits()
        counts = self.counts[splits.train]
        absent = [name for name, count in zip(self.index.classes, counts, strict=True) if not count]
        if not absent:
            return None
        few = ", ".join(map(repr, absent[:3])) + (f" and {len(absent) - 3} more" if absent[3:] else "")
        return f"the split {splits.train!r} has no usable image of {few}; add some, or take the class out"

    def _obstacle_without_splits(self) -> str:
        there = ", ".join(f"{name!r} ({counts.sum():,} images)" for name, counts in self.counts.items())
        if self.index.source.get("split_from") == "hash":
            return f"there are too few images to train on some and measure on others: {there}"
        return (
            f"training needs a split to learn from and another to measure on, and the source has {there}; give a folder "
            "without splits, such as that of one split alone, and it is split by shares"
        )

    @property
    def is_imbalanced(self) -> bool:
        """Whether the training images of the classes differ so much in number that they are to be weighed."""
        assert self.splits is not None
        counts = self.counts[self.splits.train]
        return bool(counts.max() >= IMBALANCED * max(counts.min(), 1))

    def notes(self, size: tuple[int, int]) -> list[str]:
        """Say what is odd about the images, for a model of a size (height, width), and what comes of it."""
        notes = []
        widths, heights = (self._table[name].to_numpy() for name in ("width", "height"))
        num = len(widths)
        num_gray = pc.sum(pc.equal(self._table["channels"], 1)).as_py() or 0
        if num_gray:
            share = "all" if num_gray == num else f"{num_gray:,} of {num:,}"
            notes.append(f"gray: {share} images; they reach the model as three equal channels")
        side = float(np.median(np.minimum(widths, heights))) if num else 0.0
        if num and side * SMALL < min(size):
            notes.append(
                f"small: images have {side:.0f} pixels on their short side (median) and are enlarged to {size[0]} x {size[1]}"
            )
        long = np.maximum(widths, heights) >= LONG * np.minimum(widths, heights)
        if num and long.mean() > 0.5 and not self.is_annotated:
            notes.append(
                "long: most images are twice as long as wide, of which a centre crop sees half; plan.yaml has the line "
                "that keeps all of them"
            )
        if self.obstacle is None and (splits := self.splits) is not None:
            notes += self._notes_of_splits(splits)
        return notes

    def _notes_of_splits(self, splits: Splits) -> list[str]:
        notes = []
        if splits.test is None and canonical_split(splits.validation) != "val":
            notes.append(
                f"splits: the source has none for validation, so {splits.validation!r} chooses the best epoch and its figures "
                "flatter"
            )
        few = [name for name in (splits.validation, splits.test) if name and self.counts[name].sum() < FEW]
        if few:
            held = " and ".join(f"{self.counts[name].sum():,} in {name!r}" for name in few)
            notes.append(f"few images: {held}; what is measured on them means little")
        if self.is_imbalanced:
            notes.append(
                "classes: of very different size, so training weighs them (class_weights in train.yaml)"
            )
        return notes


def _meaning(names: Sequence[str], split: str) -> str | None:
    """Find the split of that name, or else the first of that meaning."""
    if split in names:
        return split
    return next((name for name in names if canonical_split(name) == split), None)


def better_seed(index: Index) -> int:
    """Find a seed of the split by which more classes appear in every split; the index's own where none does better.

    A hash gives each image its split by itself, so that of few images a split may get none.
    """
    source: dict[str, Any] = index.source
    own = int(source.get("seed", 0))
    shares = source.get("fractions", DEFAULT_FRACTIONS)
    names = [name for name, share in shares.items() if share > 0]
    table = index.table.filter(pc.fill_null(pc.equal(index.table["status"], "ok"), False))
    labels, keys = table["label"].to_numpy(), table["key"].to_pylist()
    sizes = np.bincount(labels[labels >= 0], minlength=1)
    wanted = int(np.minimum(sizes, len(names)).sum())
    if source.get("split_from") != "hash" or not keys:
        return own

    def met(seed: int) -> int:
        of = zip(labels.tolist(), assign_splits(keys, shares, seed), strict=True)
        return len({pair for pair in of if pair[0] >= 0})

    best, reached = own, met(own)
    for seed in range(min(MAX_SEEDS, MAX_HASHES // len(keys))):
        if reached >= wanted:
            break
        if (here := met(seed)) > reached:
            best, reached = seed, here
    return best
