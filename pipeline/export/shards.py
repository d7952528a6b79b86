"""Shard writer: WebDataset tar files or Parquet, written atomically. Equal records give equal bytes.

The samples of a part go into one shard per split, such as ``train-000000.tar``, since readers tell splits by file names;
samples without a split go into ``shard-000000.tar``.

A tar shard has for each sample the image, ``.json`` with all metadata, ``.cls`` with the class number if the source has one
label per image (-1 for none), and ``.seg.png`` if the source has masks (255 everywhere for none): every sample has the same
members, since readers that request some stop at the first sample that lacks one. Of a source with sets of labels, ``label``
in ``.json`` lists the names of the classes.
Format: https://github.com/webdataset/webdataset. A Parquet shard has the same values as columns (``parquet_schema``).
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from ..atomic_io import atomic_write
from ..index.index import Index
from .encoding import SUFFIXES, EncodingName
from .parquet_schema import parquet_schema, to_rows

FormatName = Literal["tar", "parquet"]
ROW_GROUP = 128
"""Rows per row group of a Parquet shard."""
NO_SPLIT = "shard"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """Fields and names that all samples of a source share."""

    classes: tuple[str, ...]
    box_classes: tuple[str, ...]
    keypoint_names: tuple[str, ...]
    has_labels: bool
    """Whether images have one class each."""
    has_label_sets: bool
    """Whether images have any number of classes."""
    has_masks: bool

    @classmethod
    def of(cls, index: Index) -> Layout:
        """Derive the layout from the source's index."""
        has_masks = index.table["mask"].null_count < len(index)
        sets = index.is_multi_label
        has_labels = bool(index.classes) and not sets
        return cls(index.classes, index.box_classes, index.keypoint_names, has_labels, sets, has_masks)


@dataclass(frozen=True, slots=True)
class ShardWriter:
    """Writes shards of one format."""

    format: FormatName
    encoding: EncodingName
    layout: Layout

    def write(self, records: Sequence[Record], part: int, folder: Path) -> list[dict[str, Any]]:
        """Write the shards of a part.

        Returns:
            The records without image and mask, with ``shard``, ``row`` and ``bytes``, and for tar files ``offset``, the
            latter two also for the mask.

        Raises:
            OutputError: a shard cannot be written.
        """
        written: list[dict[str, Any]] = []
        for split, some in _group_by_split(records).items():
            name = _shard_name(split, part, self.format)
            with atomic_write(folder / name) as file:
                is_tar = self.format == "tar"
                placed = self._tar(file, some, part, len(written)) if is_tar else self._parquet(file, some)
            written += [
                without_images(one) | place | {"shard": name} for one, place in zip(some, placed, strict=True)
            ]
        return written

    def _tar(self, file: BinaryIO, records: Sequence[Record], part: int, first: int) -> list[dict[str, Any]]:
        """Write a tar file; samples are named by part and number, starting at ``first``."""
        placed = []
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for row, record in enumerate(records):
                name = f"{part:06d}-{first + row:06d}"
                place = {"row": row, "bytes": len(record["image"])}
                place["offset"] = _add(tar, f"{name}.{SUFFIXES[self.encoding]}", record["image"])
                if self.layout.has_labels:
                    _add(tar, f"{name}.cls", str(record["label"]).encode())
                metadata = self._metadata(record)
                if self.layout.has_label_sets:
                    metadata["label"] = metadata["classes"]
                _add(tar, f"{name}.json", json.dumps(metadata, ensure_ascii=False).encode())
                if record["mask_image"] is not None:
                    offset = _add(tar, f"{name}.seg.png", record["mask_image"])
                    if record["has_mask"]:
                        place |= {"mask_offset": offset, "mask_bytes": len(record["mask_image"])}
                placed.append(place)
        return placed

    def _parquet(self, file: BinaryIO, records: Sequence[Record]) -> list[dict[str, Any]]:
        schema = parquet_schema(self.layout, self.encoding)
        rows = [
            self._metadata(record) | {"image": record["image"], "mask": record["mask_image"]}
            for record in records
        ]
        pq.write_table(
            pa.Table.from_pylist(to_rows(rows, schema), schema=schema),
            file,
            row_group_size=ROW_GROUP,
            use_dictionary=False,
            compression="NONE",  # images are already compressed
            write_page_checksum=True,
        )
        return [{"row": row, "bytes": len(record["image"])} for row, record in enumerate(records)]

    def _metadata(self, record: Record) -> dict[str, Any]:
        """Return a sample's metadata as JSON values, with class names."""
        names = (
            "key",
            "split",
            "epoch",
            "label",
            "width",
            "height",
            "channels",
            "boxes",
            "box_labels",
            "keypoints",
        )
        metadata = {name: record[name] for name in names} | {"encoding": self.encoding}
        metadata["class"] = _name_of(record["label"], self.layout.classes)
        if self.layout.has_label_sets:
            numbers = record["labels"]
            metadata["labels"] = numbers
            metadata["classes"] = numbers and [self.layout.classes[number] for number in numbers]
        labels = record["box_labels"]
        metadata["box_classes"] = labels and [_name_of(label, self.layout.box_classes) for label in labels]
        metadata["keypoint_names"] = (
            list(self.layout.keypoint_names) if record["keypoints"] is not None else None
        )
        return metadata | ({"has_mask": record["has_mask"]} if self.layout.has_masks else {})


def shard_names(splits: Sequence[str | None], part: int, file_format: FormatName) -> list[str]:
    """Return the names of a part's shards, one per split; splits whose names are not plain words share the default shard."""
    return sorted({_shard_name(_plain(split), part, file_format) for split in splits})


def _plain(split: str | None) -> str | None:
    return split if split is not None and _NAME.fullmatch(split) else None


def _shard_name(split: str | None, part: int, file_format: FormatName) -> str:
    return f"{split or NO_SPLIT}-{part:06d}.{file_format}"


def _group_by_split(records: Sequence[Record]) -> dict[str | None, list[Record]]:
    """Group records by split, in order; splits whose names are not plain words share the default shard."""
    found: dict[str | None, list[Record]] = {}
    for record in records:
        found.setdefault(_plain(record["split"]), []).append(record)
    return {split: found[split] for split in sorted(found, key=lambda name: name or "")}


def _name_of(label: int, names: Sequence[str]) -> str | None:
    return names[label] if 0 <= label < len(names) else None


def without_images(record: Record) -> dict[str, Any]:
    """Return a record without image and mask."""
    return {name: value for name, value in record.items() if name not in ("image", "mask_image")}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Add a file without time and owner to a tar file; returns the offset of its content."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(info, io.BytesIO(data))
    return offset
