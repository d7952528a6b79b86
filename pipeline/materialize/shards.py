"""Shards of finished samples: WebDataset tar files, or Parquet. Written aside, then renamed; equal records, equal bytes.

A tar shard holds for each sample ``PART-NUMBER.png``, its label as ``.cls``, all that is known of it as ``.json`` and its
mask as ``.seg.png``; what is not there is left out. Format: https://github.com/webdataset/webdataset.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from ..atomic_io import atomic_write
from .encoding import SUFFIXES, EncodingName

FormatName = Literal["tar", "parquet"]
ROW_GROUP = 128
"""Samples that are read together from Parquet."""

PARQUET = pa.schema(
    [
        ("key", pa.string()),
        ("epoch", pa.int64()),
        ("label", pa.int64()),
        ("class", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("channels", pa.int8()),
        ("encoding", pa.string()),
        ("image", pa.binary()),
        ("mask", pa.binary()),
        ("boxes", pa.list_(pa.list_(pa.float32()))),
    ]
)
"""Columns of a Parquet shard; ``image`` and ``mask`` are encoded files."""

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ShardWriter:
    """Writes shards of one kind into one folder."""

    format: FormatName
    encoding: EncodingName
    classes: tuple[str, ...]

    def name(self, part: int) -> str:
        """Name a shard by the number of its part."""
        return f"shard-{part:06d}.{self.format}"

    def write(self, records: Sequence[Record], part: int, folder: Path) -> list[dict[str, Any]]:
        """Write a shard.

        Returns:
            The records without image and mask, with ``shard`` and ``row``, and in a tar file ``offset`` and ``bytes``, and
            the same of the mask.

        Raises:
            OutputError: the disk does not take it.
        """
        written: list[dict[str, Any]] = []

        def fill(file: BinaryIO) -> None:
            write = self._tar if self.format == "tar" else self._parquet
            written.extend(write(file, records, part))

        write_aside(folder / self.name(part), fill)
        return written

    def _tar(self, file: BinaryIO, records: Sequence[Record], part: int) -> list[dict[str, Any]]:
        written = []
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for row, record in enumerate(records):
                name = f"{part:06d}-{row:06d}"
                places = {"offset": _add(tar, f"{name}.{SUFFIXES[self.encoding]}", record["image"])}
                places["bytes"] = len(record["image"])
                if record["label"] >= 0:
                    _add(tar, f"{name}.cls", str(record["label"]).encode())
                _add(tar, f"{name}.json", json.dumps(self._told(record), ensure_ascii=False).encode())
                if record["mask_image"] is not None:
                    places["mask_offset"] = _add(tar, f"{name}.seg.png", record["mask_image"])
                    places["mask_bytes"] = len(record["mask_image"])
                written.append(slim(record) | places | {"shard": self.name(part), "row": row})
        return written

    def _parquet(self, file: BinaryIO, records: Sequence[Record], part: int) -> list[dict[str, Any]]:
        rows = [
            self._told(record) | {"image": record["image"], "mask": record["mask_image"]}
            for record in records
        ]
        table = pa.Table.from_pylist(rows, schema=PARQUET)
        pq.write_table(
            table,
            file,
            row_group_size=ROW_GROUP,
            use_dictionary=False,
            compression={name: "NONE" if name in ("image", "mask") else "ZSTD" for name in _leaves()},
            write_page_checksum=True,
        )
        return [
            slim(record) | {"shard": self.name(part), "row": row, "bytes": len(record["image"])}
            for row, record in enumerate(records)
        ]

    def _told(self, record: Record) -> dict[str, Any]:
        label = record["label"]
        told = {
            name: record[name] for name in ("key", "epoch", "label", "width", "height", "channels", "boxes")
        }
        named = self.classes[label] if 0 <= label < len(self.classes) else None
        return told | {"class": named, "encoding": self.encoding}


def slim(record: Record) -> dict[str, Any]:
    """Leave out what lies in the shard."""
    return {name: value for name, value in record.items() if name not in ("image", "mask_image")}


def _leaves() -> list[str]:
    names = [name for name in PARQUET.names if name != "boxes"]
    return [*names, "boxes.list.element.list.element"]


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Add a file whose header tells nothing of when and by whom; returns where its bytes begin."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(info, io.BytesIO(data))
    return offset


def write_aside(path: Path, fill: Callable[[BinaryIO], None]) -> None:
    """Write a file, whole or not at all.

    Raises:
        OutputError: the disk does not take it.
    """
    with atomic_write(path) as file:
        fill(file)
