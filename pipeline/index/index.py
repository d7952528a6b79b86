"""Index of a dataset: an Arrow table with one row per sample, stored as Parquet."""

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
from ..errors import SourceError, did_you_mean
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
        ("groups", pa.string()),
        ("split", pa.string()),
        ("status", pa.string()),
    ]
)
"""Columns of an index. Width and height are pixels as stored, before EXIF orientation.

Annotations refer to the upright image, after EXIF orientation. Null means "not annotated":

- ``mask``: path or URI of a single-channel label mask of the size of the upright image.
- ``boxes``: rows of x0, y0, x1, y1 in pixels; an empty list is an annotated image without objects.
- ``box_labels``: one number per box, into ``Index.box_classes``, or -1 for an unknown class.
- ``keypoints``: rows of x, y, visibility (COCO: 0 not labelled, 1 occluded, 2 visible), ``len(Index.keypoint_names)``
  rows per instance. Instances are the boxes, in order, or a single one if the sample has no boxes.

``labels`` holds the sorted classes of multi-label images; null for an image without a label, and in every row of an index
with one class per image. Where it is used, ``label`` is -1.

``groups`` holds other columns of a table as a JSON object. ``etag`` is the ETag of a remote file. A sample in a tar shard
has the shard's ``uri``, ``mtime_ns`` and ``etag``, and its byte offset as ``offset``, that of its mask as ``mask_offset``;
both are null for separate files. ``hash`` is BLAKE2b of the file's bytes (128 bits, hexadecimal), null if not requested.
"""

OPTIONAL_COLUMNS = frozenset(
    ["labels", "etag", "offset", "hash", "mask_offset", "mask_bytes", "box_labels", "keypoints", "groups"]
)
"""Columns that may be missing in older index files; they are read as null."""

NO_STATUS = "the index gives no status; index the source again"

CLASSES = b"lightwell.classes"
BOX_CLASSES = b"lightwell.box_classes"
KEYPOINT_NAMES = b"lightwell.keypoint_names"
SOURCE = b"lightwell.source"
SHARDS = b"lightwell.shards"
RELATIVE = b"lightwell.relative"
"""If set, ``uri`` and ``mask`` of all rows are relative to the folder of the index, so that both can be moved together."""


@dataclass(frozen=True)
class Index:
    """All samples of a dataset, usable or not, with their header data, labels and annotations."""

    table: pa.Table
    """With ``SCHEMA``; its metadata describes the source as JSON under ``lightwell.source``."""
    classes: tuple[str, ...]
    digest: str | None = field(default=None, compare=False)
    """Digest of the rows, if it was stored with them."""
    box_classes: tuple[str, ...] = ()
    """Class names of boxes; by default from the table's metadata."""
    keypoint_names: tuple[str, ...] = ()
    """Keypoint names of one instance, in order; by default from the table's metadata."""

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
            SourceError: the file is missing, damaged or not an index, or lacks a column.
        """
        path = Path(path)
        with _source_errors(path):
            table = _normalized(pq.read_table(path, page_checksum_verification=True), path)
            return cls(table, _names_in(table, CLASSES))

    @classmethod
    def open(cls, path: str | Path, *, min_rows: int | None = None) -> Index:
        """Load an index; a large one is memory-mapped and shared by all processes of a machine (see ``mmap_index``).

        Args:
            path: the Parquet file.
            min_rows: rows from which an index is memory-mapped; by default ``MMAP_MIN_ROWS``.

        Raises:
            SourceError: as ``load`` does.
        """
        path = Path(path)
        with _source_errors(path):
            opened = open_mmap(path, lambda rows: _normalized(rows, path), min_rows)
            if opened is not None:
                return cls(opened.table, _names_in(opened.table, CLASSES), opened.digest)
        return cls.load(path)

    def save(self, path: str | Path) -> None:
        """Save as Parquet with page checksums, atomically.

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
        """Return the usable rows of a split, or of all splits.

        Args:
            split: its name; common spellings such as ``validation`` match ``val``.

        Returns:
            int64 row numbers, ascending, of rows with status ``ok``.

        Raises:
            SourceError: no row matches.
        """
        usable = self._usable()
        if not pc.any(usable).as_py():
            raise SourceError(self._no_usable_rows())
        if split is None:
            return self._row_numbers(usable)
        name = self.resolve_split(split)
        return self._row_numbers(pc.and_(usable, pc.fill_null(pc.equal(self.table["split"], name), False)))

    def resolve_split(self, split: str) -> str:
        """Resolve a split name: itself, or another common spelling of the same split.

        Raises:
            SourceError: no such split with usable images.
        """
        names = set(self.table["split"].filter(self._usable()).drop_null().unique().to_pylist())
        canonical = canonical_split(split)
        for name in (
            split,
            canonical,
            *sorted(one for one in names if canonical_split(one) == canonical and canonical),
        ):
            if name in names:
                return str(name)
        raise SourceError(
            f"expected a split {split!r}, got an index with the splits {sorted(names)};"
            f" {did_you_mean(split, names) or 'choose one of these'}"
        )

    def unusable(self, split: str | None = None) -> pa.Table:
        """Return ``key``, ``uri`` and ``status`` of the unusable rows of a split, or of all splits.

        Raises:
            SourceError: no such split.
        """
        bad = pc.invert(self._usable())
        if split is not None:
            name = self.resolve_split(split)
            bad = pc.and_(bad, pc.fill_null(pc.equal(self.table["split"], name), False))
        selected = self.table.select(["key", "uri", "status"]).filter(bad)
        return selected.set_column(2, "status", pc.fill_null(selected["status"], NO_STATUS))

    @property
    def source(self) -> dict[str, Any]:
        """Description of the source: kind, root, options and skipped files."""
        return dict(json.loads((self.table.schema.metadata or {}).get(SOURCE, b"{}")))

    @property
    def is_multi_label(self) -> bool:
        """Whether images may have several classes, in the column ``labels``."""
        return bool(self.table["labels"].null_count < len(self))

    def _usable(self) -> pa.ChunkedArray:
        return pc.fill_null(pc.equal(self.table["status"], "ok"), False)

    def fingerprint(self) -> str:
        """Hash key, bytes, mtime, label and split of every row, in order; also annotations, etag and hash if there are any.

        Returns:
            32 hex digits.
        """
        return self.digest or digest_of(self.table)

    def counts(self) -> list[dict[str, Any]]:
        """Count images per split, class and status.

        Returns:
            Dicts with ``split``, ``class``, ``label``, ``status`` and ``count``: usable images by split and
            class first, then unusable ones by split and status (``class`` None, ``label`` None). An image with
            several classes is counted in each of them.
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
        """Summarize the index: totals, splits, classes, statuses and the source."""
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
        """Count the boxes of all samples by class, most frequent first; ``(no class)`` for boxes without one."""
        num_boxes = pc.sum(pc.list_value_length(self.table["boxes"])).as_py() or 0
        labels = pc.list_flatten(self.table["box_labels"]).to_pylist()
        counts = Counter(
            self.box_classes[label] if 0 <= label < len(self.box_classes) else "(no class)"
            for label in labels
        )
        counts["(no class)"] += num_boxes - len(labels)
        return {name: count for name, count in counts.most_common() if count}

    def _boxes(self) -> dict[str, Any]:
        if self.table["boxes"].null_count == len(self):
            return {}
        boxes = count_boxes(self.table)
        return {
            "boxes": {
                "count": boxes.num_boxes,
                "classes": self.box_counts(),
                "without_area": boxes.num_dropped,
                "first": list(boxes.keys),
            }
        }

    def _class(self, label: int) -> str | None:
        if label < 0:
            return None
        return self.classes[label] if label < len(self.classes) else str(label)

    def _row_numbers(self, mask: pa.ChunkedArray) -> np.ndarray:
        return np.flatnonzero(mask.to_numpy(zero_copy_only=False)).astype(np.int64, copy=False)

    def _no_usable_rows(self) -> str:
        bad = list(zip(self.table["key"][:3].to_pylist(), self.table["status"][:3].to_pylist(), strict=True))
        reasons = "; ".join(f"{key}: {status}" for key, status in bad) or "no rows"
        return (
            f"expected an index with usable images, got {len(self)} rows and none of them usable ({reasons});"
            " repair or convert the files, then index again"
        )


_HOW_TO_MAKE = "make one with `lightwell index SOURCE -o index.parquet`"


@contextmanager
def _source_errors(path: Path) -> Iterator[None]:
    if not path.is_file():
        raise SourceError(_missing_file_error(path))
    try:
        yield
    except KeyError as error:
        raise SourceError(f"expected an index, got {str(path)!r}, another table; {_HOW_TO_MAKE}") from error
    except SourceError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SourceError(f"expected an index, got {str(path)!r} ({reason}); {_HOW_TO_MAKE}") from error


def names_metadata(names: Mapping[bytes, Sequence[str]]) -> dict[bytes, bytes]:
    """Serialize lists of names as index metadata; empty lists are omitted, except for the classes."""
    return {key: json.dumps(list(some)).encode() for key, some in names.items() if some or key == CLASSES}


def _names_in(table: pa.Table, key: bytes) -> tuple[str, ...]:
    """Read a list of names from index metadata.

    Raises:
        ValueError: not a list of names.
    """
    text = (table.schema.metadata or {}).get(key, b"[]")
    try:
        names = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{key.decode()} is nested too deep") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{key.decode()} is no list of names")
    return tuple(names)


def _normalized(table: pa.Table, path: Path) -> pa.Table:
    """Select and cast the columns of an index; missing optional columns become null."""
    if CLASSES not in (table.schema.metadata or {}):
        raise KeyError(CLASSES)
    for name in SCHEMA.names:
        if name in OPTIONAL_COLUMNS and name not in table.column_names:
            table = table.append_column(SCHEMA.field(name), pa.nulls(len(table), SCHEMA.field(name).type))
        if name not in table.column_names:
            hint = did_you_mean(name, table.column_names)
            raise SourceError(
                f"{path.name}: expected a column {name!r}, got {table.column_names}; {hint or _HOW_TO_MAKE}"
            )
    table = table.select(SCHEMA.names).cast(SCHEMA.with_metadata(table.schema.metadata))
    return _resolve_paths(mark_invalid_rows(table), path)


def _resolve_paths(table: pa.Table, path: Path) -> pa.Table:
    """Make the paths of an index with relative paths absolute."""
    metadata = dict(table.schema.metadata)
    if metadata.pop(RELATIVE, None) is None:
        return table
    folder = str(path.absolute().parent)
    for name in ("uri", "mask"):
        joined = pc.binary_join_element_wise(folder, table[name], "/")
        table = table.set_column(table.column_names.index(name), SCHEMA.field(name), joined)
    return table.replace_schema_metadata({**metadata, RESOLVED: folder.encode()})


def _missing_file_error(path: Path) -> str:
    if path.is_dir():
        return f"expected an index file, got the folder {str(path)!r}; {_HOW_TO_MAKE}"
    siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, siblings)
    return f"expected an index, got no file {str(path)!r}; {hint + ' or ' if hint else ''}{_HOW_TO_MAKE}"
