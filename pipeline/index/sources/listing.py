"""Listing of a source: paths, labels, splits and annotations, before the image files are opened."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from ...storage.local import FileStat
from ..file_info import FileInfo
from .remarks import Remarks

Boxes = list[list[float]]
Keypoints = list[list[float]]


def as_text(name: str) -> str:
    """Escape bytes of a file name that are not UTF-8, so that a table can store it."""
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # lone surrogate, in no file name
        return name.encode("utf-8", "backslashreplace").decode()


class ShardIdentity(NamedTuple):
    """Stat of a shard, and the remarks from reading it."""

    file_stat: FileStat
    remarks: Sequence[Mapping[str, object]] = ()


@dataclass(frozen=True)
class Listing:
    """The samples of a source. All lists are as long as ``keys``."""

    kind: Literal["folder", "table", "flat", "shards", "coco", "yolo", "voc"]
    root: str
    """A folder or the URI of one."""
    keys: list[str]
    """Unique; POSIX path, relative to ``root`` if the file is below it."""
    uris: list[str]
    """Absolute paths or URIs; for samples in a shard, those of the shard."""
    labels: list[int]
    """Index into ``classes``; -1 for none."""
    classes: tuple[str, ...]
    splits: list[str | None] | None = None
    """None if the source has no splits; then they are assigned by hash."""
    masks: list[str | None] | None = None
    boxes: list[Boxes | None] | None = None
    """As in the index column of the same name, like the next two fields; see ``index.SCHEMA``."""
    box_labels: list[list[int] | None] | None = None
    keypoints: list[Keypoints | None] | None = None
    box_classes: tuple[str, ...] = ()
    keypoint_names: tuple[str, ...] = ()
    box_unit: Literal["pixel", "fraction"] = "pixel"
    """Fractions of the upright size are converted to pixels by ``boxes.fit_annotations``."""
    declared_sizes: list[tuple[int, int] | None] | None = None
    """Width and height of the image as stated by its annotations."""
    groups: list[str | None] | None = None
    """Other columns of a table, as in the index column of the same name."""
    file_stats: list[FileStat] | None = None
    """Stats of the files from a remote listing, which save further requests."""
    file_infos: list[FileInfo] | None = None
    """Scan results, if listing included reading, as for shards."""
    shards: Mapping[str, ShardIdentity] = field(default_factory=dict)
    """Identity of every completely read shard, by URI."""
    notes: Mapping[str, object] = field(default_factory=dict)
    """Additional data for the summary of the index: empty classes, skipped files."""
    remarks: Remarks = field(default_factory=Remarks)
    """Counts of what was left out, merged, converted or assumed."""
    label_sets: list[list[int] | None] | None = None
    """Multi-label classes, as in ``Labels.sets``; None for single-label data."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """Error status of samples that are not opened, by position."""

    def subset(self, indices: Sequence[int]) -> Listing:
        """Return the files at some positions, with the fields needed to scan them."""
        return replace(
            self,
            keys=[self.keys[index] for index in indices],
            uris=[self.uris[index] for index in indices],
            masks=[self.masks[index] for index in indices] if self.masks else None,
            file_stats=[self.file_stats[index] for index in indices] if self.file_stats else None,
            refused={},
        )
