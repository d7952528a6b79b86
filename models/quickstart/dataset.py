"""Properties of an index from which a plan and jobs are generated: annotations, classes, splits, image sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ...pipeline.index.index import Index
from ...pipeline.index.splits import DEFAULT_FRACTIONS, assign_splits, canonical_split
from ...pipeline.text import first_few

IMBALANCE_RATIO = 3.0
"""Ratio of the largest to the smallest class from which class weights are used."""
MIN_SPLIT_IMAGES = 20
"""Number of images in a split below which its metrics are unreliable."""
MIN_UPSCALING = 1.5
"""Upscaling factor from which a note is shown."""
ELONGATED_RATIO = 2.0
"""Aspect ratio from which a centre crop loses half of the image."""
TABLES, ANNOTATIONS = (".csv", ".parquet"), (".xml", ".json", ".txt")
MAX_SEEDS, MAX_HASHES = 1000, 200_000
"""Maximum number of seeds to try for a split, and of keys to hash in total."""


@dataclass(frozen=True)
class Splits:
    """Splits of an index for training, validation, test and audit."""

    train: str
    validation: str
    test: str | None

    @property
    def audited(self) -> str:
        """Split to audit: test, or validation if there is no test split."""
        return self.test or self.validation


class Dataset:
    """Usable images of an index, with their classes and splits.

    Args:
        index: index of the data set.
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
        """Whether images have annotations, so that the plan must not crop them."""
        return self.has_boxes or self.has_masks or self.has_keypoints

    @cached_property
    def counts(self) -> Mapping[str, np.ndarray]:
        """Number of labelled images by split and class."""
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
        """Splits for training and evaluation of a classifier; None without two labelled splits."""
        labelled = [name for name, counts in self.counts.items() if counts.sum()]
        train, validation, test = (_find_split(labelled, name) for name in ("train", "val", "test"))
        if train is None or (validation is None and test is None):
            return None
        if validation is None:
            assert test is not None
            return Splits(train, test, None)
        return Splits(train, validation, test)

    @property
    def no_training_reason(self) -> str | None:
        """Reason why no classifier can be trained, with a hint; None if one can."""
        if self.index.is_multi_label:
            return "images have several classes each; write a job file with `job: multilabel`"
        labelled = [
            name
            for number, name in enumerate(self.index.classes)
            if sum(counts[number] for counts in self.counts.values())
        ]
        if not labelled:
            return self._no_labels_reason()
        if len(labelled) == 1:
            return f"all images are of one class, {labelled[0]!r}, and a classifier needs at least two{self._hint()}"
        return self._no_class_reason()

    def _no_labels_reason(self) -> str:
        kinds = {"boxes": self.has_boxes, "masks": self.has_masks, "keypoints": self.has_keypoints}
        found = " and ".join(name for name, present in kinds.items() if present)
        if self.has_masks:
            return (
                "images have masks but no class labels, and `lightwell init` writes jobs of classifiers; "
                "`lightwell new recipe segmentation` prints a job for masks"
            )
        if found:
            return (
                f"images have {found} but no class labels, and `lightwell init` writes jobs of classifiers; the plan makes "
                f"batches with {found} for your own model"
            )
        return (
            "no image has a class; put the images into one folder per class, such as photos/cat and photos/dog, or "
            f"list them in a table with the columns path and label{self._hint()}"
        )

    def _hint(self) -> str:
        """Return a hint if ignored files include a table or annotations, which may hold the classes."""
        source = self.index.source
        examples = [
            str(name)
            for remark in source.get("remarks", ())
            if remark["kind"] == "left_out"
            for name in remark["examples"]
        ]
        for name in examples:
            if name.endswith(TABLES):
                return (
                    f"; the folder contains {name!r}: if it holds the labels, give it instead of the folder"
                )
        for name in examples:
            if name.endswith(ANNOTATIONS):
                return (
                    f"; the folder contains {name!r}: if it holds boxes, add --annotations coco, yolo or voc"
                )
        return ""

    def _no_class_reason(self) -> str | None:
        splits = self.splits
        if splits is None:
            return self._no_splits_reason()
        counts = self.counts[splits.train]
        absent = [name for name, count in zip(self.index.classes, counts, strict=True) if not count]
        if not absent:
            return None
        few = first_few([*map(repr, absent)])
        return f"the split {splits.train!r} has no usable image of {few}; add some, or remove the class"

    def _no_splits_reason(self) -> str:
        split_sizes = ", ".join(f"{name!r} ({counts.sum():,} images)" for name, counts in self.counts.items())
        if self.index.source.get("split_from") == "hash":
            return f"there are too few images for separate training and validation splits: {split_sizes}"
        return (
            f"training needs a training and a validation split, and the source has {split_sizes}; give a folder without splits, "
            "such as that of one split, and it is split at random"
        )

    @property
    def is_imbalanced(self) -> bool:
        """Whether class sizes differ so much that training should use class weights."""
        assert self.splits is not None
        counts = self.counts[self.splits.train]
        return bool(counts.max() >= IMBALANCE_RATIO * max(counts.min(), 1))

    def notes(self, size: tuple[int, int]) -> list[str]:
        """Return notes about unusual images and splits, for a model with input size (height, width)."""
        notes = []
        widths, heights = (self._table[name].to_numpy() for name in ("width", "height"))
        num = len(widths)
        num_gray = pc.sum(pc.equal(self._table["channels"], 1)).as_py() or 0
        if num_gray:
            share = "all" if num_gray == num else f"{num_gray:,} of {num:,}"
            notes.append(f"gray: {share} images; they are converted to three equal channels")
        side = float(np.median(np.minimum(widths, heights))) if num else 0.0
        if num and side * MIN_UPSCALING < min(size):
            notes.append(
                f"small: images have {side:.0f} pixels on their short side (median) and are enlarged to {size[0]} x {size[1]}"
            )
        long = np.maximum(widths, heights) >= ELONGATED_RATIO * np.minimum(widths, heights)
        if num and long.mean() > 0.5 and not self.is_annotated:
            notes.append(
                "elongated: most images have an aspect ratio of at least 2, and a centre crop loses half of them; plan.yaml "
                "has an alternative that keeps the whole image"
            )
        if self.no_training_reason is None and (splits := self.splits) is not None:
            notes += self._notes_of_splits(splits)
        return notes

    def _notes_of_splits(self, splits: Splits) -> list[str]:
        notes = []
        if splits.test is None and canonical_split(splits.validation) != "val":
            notes.append(
                f"splits: the source has no validation split, so {splits.validation!r} selects the best epoch and its metrics "
                "are optimistic"
            )
        few = [
            name
            for name in (splits.validation, splits.test)
            if name and self.counts[name].sum() < MIN_SPLIT_IMAGES
        ]
        if few:
            held = " and ".join(f"{self.counts[name].sum():,} in {name!r}" for name in few)
            notes.append(f"few images: {held}; metrics on them are unreliable")
        if self.is_imbalanced:
            notes.append("classes: imbalanced, so training uses class weights (class_weights in train.yaml)")
        return notes


def _find_split(names: Sequence[str], split: str) -> str | None:
    """Return the split of a name, or else the first with an equivalent name."""
    if split in names:
        return split
    return next((name for name in names if canonical_split(name) == split), None)


def better_seed(index: Index) -> int:
    """Search a seed of the split with more classes in every split; returns the index's own seed if none is better.

    Splits are assigned by a hash of each image's key, so that with few images a split may miss a class.
    """
    source: dict[str, Any] = index.source
    own = int(source.get("seed", 0))
    shares = source.get("fractions", DEFAULT_FRACTIONS)
    names = [name for name, share in shares.items() if share > 0]
    table = index.table.filter(pc.fill_null(pc.equal(index.table["status"], "ok"), False))
    labels, keys = table["label"].to_numpy(), table["key"].to_pylist()
    sizes = np.bincount(labels[labels >= 0], minlength=1)
    max_pairs = int(np.minimum(sizes, len(names)).sum())
    if source.get("split_from") != "hash" or not keys:
        return own

    def num_pairs(seed: int) -> int:
        of = zip(labels.tolist(), assign_splits(keys, shares, seed), strict=True)
        return len({pair for pair in of if pair[0] >= 0})

    best, most_pairs = own, num_pairs(own)
    for seed in range(min(MAX_SEEDS, MAX_HASHES // len(keys))):
        if most_pairs >= max_pairs:
            break
        if (pairs := num_pairs(seed)) > most_pairs:
            best, most_pairs = seed, pairs
    return best
