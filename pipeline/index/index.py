"""What a dataset holds: an Arrow table with a row per sample, kept as Parquet."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..atomic_io import atomic_write
from ..errors import SourceError, nearest
from .boxes import count_boxes
from .digest import digest_of
from .mmap_index import RESOLVED, open_mmap, remove_mmap
from .row_checks import mark_invalid_rows
from .splits import canonical_split

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("uri", pa.string()),
        ("bytes", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("etag", pa.string()),
        ("offset", pa.int64()),
        ("hash", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("channels", pa.int8()),
        ("mode", pa.string()),
        ("format", pa.string()),
        ("orientation", pa.int8()),
        ("label", pa.int64()),
        ("labels", pa.list_(pa.int64())),
        ("mask", pa.string()),
        ("mask_offset", pa.int64()),
        ("mask_bytes", pa.int64()),
        ("boxes", pa.list_(pa.list_(pa.float32()))),
        ("box_labels", pa.list_(pa.int64())),
        ("keypoints", pa.list_(pa.list_(pa.float32()))),
        ("split", pa.string()),
        ("status", pa.string()),
    ]
)
"""Columns of an index. Width and height are pixels as stored, before EXIF orientation.

Annotations belong to the upright picture, after EXIF orientation, and null means "not annotated":

- ``mask``: path or URI of a label mask of one channel, as large as the upright picture.
- ``boxes``: rows of x0, y0, x1, y1 in pixels; an empty list is an image annotated as empty.
- ``box_labels``: one number per box, into ``Index.box_classes``, or -1 where the class is unknown.
- ``keypoints``: rows of x, y, visibility (COCO: 0 not labelled, 1 occluded, 2 visible), ``len(Index.keypoint_names)``
  rows per instance. Instances are the boxes, in their order, or a single one where the sample has no boxes.

``labels`` holds the classes of images that may have several, ascending; null for an image without a label, and in every
row of an index with one class per image. Where it is used, ``label`` is -1.

``etag`` is what a remote store says of a file's identity. A sample in a tar shard has the shard's ``uri``, ``mtime_ns``
and ``etag``, and lies in it at ``offset``, its mask at ``mask_offset``; for a file of its own all of these are null.
``hash`` is BLAKE2b of the file's bytes (128 bits, hexadecimal), or null where nobody asked for it.
"""

ADDED = frozenset(
    {"labels", "etag", "offset", "hash", "mask_offset", "mask_bytes", "box_labels", "keypoints"}
)
"""Columns that older index files lack; they read as null."""

NO_STATUS = "the index gives no status; index the source again"

CLASSES = b"lightwell.classes"
BOX_CLASSES = b"lightwell.box_classes"
KEYPOINT_NAMES = b"lightwell.keypoint_names"
SOURCE = b"lightwell.source"
SHARDS = b"lightwell.shards"
RELATIVE = b"lightwell.relative"
"""Where it is set, ``uri`` and ``mask`` of all rows count from the folder of the index, with which their files move."""


@dataclass(frozen=True)
class Index:
    """The samples of a dataset, good and bad, with what their headers say."""

    table: pa.Table
    """Has ``SCHEMA``; its metadata describes the source as JSON under ``lightwell.source``."""
    classes: tuple[str, ...]
    digest: str | None = field(default=None, compare=False)
    """Of the rows, where it was kept with them."""
    box_classes: tuple[str, ...] = ()
    """Names of the classes of boxes. Where they are not given, those of the table's metadata."""
    keypoint_names: tuple[str, ...] = ()
    """Names of the keypoints of one instance, in order. Where they are not given, those of the table's metadata."""

    def __post_init__(self) -> None:
        if not self.box_classes:
            object.__setattr__(self, "box_classes", _names_in(self.table, BOX_CLASSES))
        if not self.keypoint_names:
            object.__setattr__(self, "keypoint_names", _names_in(self.table, KEYPOINT_NAMES))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @classmethod
    def load(cls, path: str | Path) -> Index:
        """Load an index from Parquet.

        Raises:
            SourceError: the file is missing, damaged or no index, or lacks a column.
        """
        path = Path(path)
        with _as_source_error(path):
            table = _fitted(pq.read_table(path, page_checksum_verification=True), path)
            return cls(table, _names_in(table, CLASSES))

    @classmethod
    def open(cls, path: str | Path, *, min_rows: int | None = None) -> Index:
        """Load an index, or map a large one into memory, which all processes of a machine share; see ``mmap_index``.

        Args:
            path: the Parquet file.
            min_rows: an index of so many rows is large; by default ``MMAP_MIN_ROWS``.

        Raises:
            SourceError: as ``load`` does.
        """
        path = Path(path)
        with _as_source_error(path):
            found = open_mmap(path, lambda rows: _fitted(rows, path), min_rows)
            if found is not None:
                return cls(found.table, _names_in(found.table, CLASSES), found.digest)
        return cls.load(path)

    def save(self, path: str | Path) -> None:
        """Save as Parquet with page checksums, whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        path = Path(path)
        names = {CLASSES: self.classes, BOX_CLASSES: self.box_classes, KEYPOINT_NAMES: self.keypoint_names}
        metadata = {**(self.table.schema.metadata or {}), **names_metadata(names)}
        with atomic_write(path) as file:
            table = self.table.replace_schema_metadata(metadata)
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)
        remove_mmap(path)

    def rows(self, split: str | None = None) -> np.ndarray:
        """Find the usable rows of a split, or of all splits.

        Args:
            split: its name; usual spellings such as ``validation`` find ``val``.

        Returns:
            int64 row numbers, ascending, of rows with status ``ok``.

        Raises:
            SourceError: nothing matches.
        """
        usable = self._usable()
        if not pc.any(usable).as_py():
            raise SourceError(self._nothing_usable())
        if split is None:
            return self._where(usable)
        name = self.resolve_split(split)
        return self._where(pc.and_(usable, pc.fill_null(pc.equal(self.table["split"], name), False)))

    def resolve_split(self, split: str) -> str:
        """Find the split that a name means: itself, or the usual name of the same split.

        Raises:
            SourceError: there is none with usable images.
        """
        there = set(self.table["split"].filter(self._usable()).drop_null().unique().to_pylist())
        meant = canonical_split(split)
        for name in (split, meant, *sorted(one for one in there if canonical_split(one) == meant and meant)):
            if name in there:
                return str(name)
        raise SourceError(
            f"expected a split {split!r}, got an index with the splits {sorted(there)};"
            f" {nearest(split, there) or 'choose one of these'}"
        )

    def unusable(self, split: str | None = None) -> pa.Table:
        """Return ``key``, ``uri`` and ``status`` of the rows of a split, or of all, that cannot be used.

        Raises:
            SourceError: there is no such split.
        """
        bad = pc.invert(self._usable())
        if split is not None:
            name = self.resolve_split(split)
            bad = pc.and_(bad, pc.fill_null(pc.equal(self.table["split"], name), False))
        found = self.table.select(["key", "uri", "status"]).filter(bad)
        return found.set_column(2, "status", pc.fill_null(found["status"], NO_STATUS))

    @property
    def source(self) -> dict[str, Any]:
        """Description of the source: its kind, root and options, and what was left out of it."""
        return dict(json.loads((self.table.schema.metadata or {}).get(SOURCE, b"{}")))

    @property
    def is_multi_label(self) -> bool:
        """Whether images may have several classes, given in the column ``labels``."""
        return bool(self.table["labels"].null_count < len(self))

    def _usable(self) -> pa.ChunkedArray:
        return pc.fill_null(pc.equal(self.table["status"], "ok"), False)

    def fingerprint(self) -> str:
        """Hash key, bytes, mtime, label and split of every row, in order; also annotations, etag and hash where there are any.

        Returns:
            32 hex digits.
        """
        return self.digest or digest_of(self.table)

    def counts(self) -> list[dict[str, Any]]:
        """Count images per split, class and status.

        Returns:
            Dicts with ``split``, ``class``, ``label``, ``status`` and ``count``: usable images by split and
            class first, then those that are not, by split and status (``class`` None, ``label`` None). An image with
            several classes counts in each of them.
        """
        splits, labels, statuses = (self.table[name].to_pylist() for name in ("split", "label", "status"))
        sets = self.table["labels"].to_pylist() if self.is_multi_label else [None] * len(labels)
        good: Counter[tuple[str | None, int]] = Counter()
        bad: Counter[tuple[str | None, str]] = Counter()
        for split, label, several, status in zip(splits, labels, sets, statuses, strict=True):
            if status != "ok":
                bad[split, NO_STATUS if status is None else status] += 1
            for one in (several or [label]) if status == "ok" else ():
                good[split, one] += 1
        report: list[dict[str, Any]] = [
            {"split": split, "class": self._class(label), "label": label, "status": "ok", "count": count}
            for (split, label), count in sorted(good.items(), key=lambda item: (item[0][0] or "", item[0][1]))
        ]
        report += [
            {"split": split, "class": None, "label": None, "status": status, "count": count}
            for (split, status), count in sorted(bad.items(), key=lambda item: (item[0][0] or "", item[0][1]))
        ]
        return report

    def summary(self) -> dict[str, Any]:
        """Sum up for people and for ``--json``: totals, splits, classes, statuses and the source."""
        counts = self.counts()
        splits: dict[str, dict[str, int]] = {}
        statuses: Counter[str] = Counter()
        for row in counts:
            if row["status"] == "ok":
                name = row["class"] if row["class"] is not None else "(no label)"
                per_class = splits.setdefault(row["split"] or "(no split)", {})
                per_class[name] = per_class.get(name, 0) + row["count"]
            else:
                statuses[row["status"]] += row["count"]
        source = self.source
        return {
            "samples": len(self),
            "usable": len(self) - statuses.total(),
            "unusable": statuses.total(),
            "num_classes": len(self.classes),
            "splits": splits,
            "statuses": dict(statuses.most_common()),
            "formats": dict(Counter(name for name in self.table["format"].to_pylist() if name).most_common()),
            "empty_classes": source.get("empty_classes", []),
            **self._boxes(),
            "is_multi_label": self.is_multi_label,
            "remarks": source.get("remarks", []),
            "fingerprint": self.fingerprint(),
            "source": source,
        }

    def box_counts(self) -> dict[str, int]:
        """Count the boxes of all samples by class, most frequent first; ``(no class)`` for those without one."""
        num_boxes = pc.sum(pc.list_value_length(self.table["boxes"])).as_py() or 0
        labels = pc.list_flatten(self.table["box_labels"]).to_pylist()
        found = Counter(
            self.box_classes[label] if 0 <= label < len(self.box_classes) else "(no class)"
            for label in labels
        )
        found["(no class)"] += num_boxes - len(labels)
        return {name: count for name, count in found.most_common() if count}

    def _boxes(self) -> dict[str, Any]:
        if self.table["boxes"].null_count == len(self):
            return {}
        found = count_boxes(self.table)
        return {
            "boxes": {
                "count": found.num_boxes,
                "classes": self.box_counts(),
                "without_area": found.num_dropped,
                "first": list(found.keys),
            }
        }

    def _class(self, label: int) -> str | None:
        if label < 0:
            return None
        return self.classes[label] if label < len(self.classes) else str(label)

    def _where(self, mask: pa.ChunkedArray) -> np.ndarray:
        return np.flatnonzero(mask.to_numpy(zero_copy_only=False)).astype(np.int64, copy=False)

    def _nothing_usable(self) -> str:
        bad = list(zip(self.table["key"][:3].to_pylist(), self.table["status"][:3].to_pylist(), strict=True))
        reasons = "; ".join(f"{key}: {status}" for key, status in bad) or "no rows"
        return (
            f"expected an index with usable images, got {len(self)} rows and none of them usable ({reasons});"
            " mend or convert the files, then index again"
        )


_MAKE = "make one with `lightwell index SOURCE -o index.parquet`"


@contextmanager
def _as_source_error(path: Path) -> Iterator[None]:
    if not path.is_file():
        raise SourceError(_missing(path))
    try:
        yield
    except KeyError as error:
        raise SourceError(f"expected an index, got {str(path)!r}, another table; {_MAKE}") from error
    except SourceError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SourceError(f"expected an index, got {str(path)!r} ({reason}); {_MAKE}") from error


def names_metadata(names: Mapping[bytes, Sequence[str]]) -> dict[bytes, bytes]:
    """Write lists of names as metadata of an index; only the classes are written where they are empty."""
    return {key: json.dumps(list(some)).encode() for key, some in names.items() if some or key == CLASSES}


def _names_in(table: pa.Table, key: bytes) -> tuple[str, ...]:
    """Read a list of names from the metadata of an index.

    Raises:
        ValueError: it is something else.
    """
    text = (table.schema.metadata or {}).get(key, b"[]")
    try:
        names = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{key.decode()} is nested too deep") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{key.decode()} is no list of names")
    return tuple(names)


def _fitted(table: pa.Table, path: Path) -> pa.Table:
    """Bring a table to the columns and types of an index; what older ones lack is null."""
    if CLASSES not in (table.schema.metadata or {}):
        raise KeyError(CLASSES)
    for name in SCHEMA.names:
        if name in ADDED and name not in table.column_names:
            table = table.append_column(SCHEMA.field(name), pa.nulls(len(table), SCHEMA.field(name).type))
        if name not in table.column_names:
            hint = nearest(name, table.column_names)
            raise SourceError(
                f"{path.name}: expected a column {name!r}, got {table.column_names}; {hint or _MAKE}"
            )
    table = table.select(SCHEMA.names).cast(SCHEMA.with_metadata(table.schema.metadata))
    return _resolved(mark_invalid_rows(table), path)


def _resolved(table: pa.Table, path: Path) -> pa.Table:
    """Let the relative paths of an index that moves with its files count from its folder."""
    metadata = dict(table.schema.metadata)
    if metadata.pop(RELATIVE, None) is None:
        return table
    folder = str(path.absolute().parent)
    for name in ("uri", "mask"):
        joined = pc.binary_join_element_wise(folder, table[name], "/")
        table = table.set_column(table.column_names.index(name), SCHEMA.field(name), joined)
    return table.replace_schema_metadata({**metadata, RESOLVED: folder.encode()})


def _missing(path: Path) -> str:
    if path.is_dir():
        return f"expected an index file, got the folder {str(path)!r}; {_MAKE}"
    siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = nearest(path.name, siblings)
    return f"expected an index, got no file {str(path)!r}; {hint + ' or ' if hint else ''}{_MAKE}"
