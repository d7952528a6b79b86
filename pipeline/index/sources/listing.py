"""What a source says of its samples before any file is opened."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from ...storage.store import FileStat
from ..file_info import FileInfo
from .remarks import Remarks

Boxes = list[list[float]]
Keypoints = list[list[float]]


def as_text(name: str) -> str:
    """Escape what is not UTF-8 in a file name, so that it can stand in a table; other names stay."""
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair, which is the name of no file
        return name.encode("utf-8", "backslashreplace").decode()


class ShardIdentity(NamedTuple):
    """Identity of a shard, and what was counted while it was read."""

    file_stat: FileStat
    remarks: Sequence[Mapping[str, object]] = ()


@dataclass(frozen=True)
class Listing:
    """The samples of a source. All lists are as long as ``keys``."""

    kind: Literal["folder", "table", "flat", "shards", "coco", "yolo", "voc"]
    root: str
    """A folder or the URI of one."""
    keys: list[str]
    """Unique; posix, relative to ``root`` where the file is below it."""
    uris: list[str]
    """Absolute paths, or URIs; of a sample in a shard the shard's."""
    labels: list[int]
    """Index into ``classes``; -1 if none."""
    classes: tuple[str, ...]
    splits: list[str | None] | None = None
    """None where the source does not say, and a hash has to."""
    masks: list[str | None] | None = None
    boxes: list[Boxes | None] | None = None
    """This and the next two as in the columns of an index; see ``index.SCHEMA``."""
    box_labels: list[list[int] | None] | None = None
    keypoints: list[Keypoints | None] | None = None
    box_classes: tuple[str, ...] = ()
    keypoint_names: tuple[str, ...] = ()
    box_unit: Literal["pixel", "fraction"] = "pixel"
    """Fractions of the upright picture become pixels once its size is known; see ``boxes.fit_annotations``."""
    declared_sizes: list[tuple[int, int] | None] | None = None
    """Width and height that annotations state of their picture."""
    file_stats: list[FileStat] | None = None
    """What a remote listing told of each file, so that nobody need ask again."""
    file_infos: list[FileInfo] | None = None
    """Where listing meant reading, as of shards: what was read."""
    shards: Mapping[str, ShardIdentity] = field(default_factory=dict)
    """Identity of every whole shard."""
    notes: Mapping[str, object] = field(default_factory=dict)
    """What the summary of the index repeats: empty classes, files left out."""
    remarks: Remarks = field(default_factory=Remarks)
    """Counts of what was left out, merged, converted or assumed."""
    label_sets: list[list[int] | None] | None = None
    """Several classes per image, as in ``Labels.sets``; None where each image has one."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """By position: samples that are not opened, with the status that says why."""

    def subset(self, indices: Sequence[int]) -> Listing:
        """Return the files at some positions, with all that is needed to read their headers."""
        return replace(
            self,
            keys=[self.keys[index] for index in indices],
            uris=[self.uris[index] for index in indices],
            masks=[self.masks[index] for index in indices] if self.masks else None,
            file_stats=[self.file_stats[index] for index in indices] if self.file_stats else None,
            refused={},
        )
