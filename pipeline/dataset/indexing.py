"""Builds an index: lists a source, reads headers in parallel, assigns splits; reads only what changed."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import pyarrow as pa

from ..errors import SourceError, nearest
from .headers import CANNOT_OPEN, Header, QuietPillow, one_line, read_header
from .index import CLASSES, SCHEMA, SOURCE, Index
from .sources.folder import list_folder
from .sources.listing import Listing, as_text
from .sources.table import SUFFIXES, list_table
from .splits import DEFAULT_FRACTIONS, assign_splits, check_fractions

_CHUNK = 64
_BAD_MASK = "mask not found: "
_BAD_NAME = f"{CANNOT_OPEN}its name is not UTF-8; rename it"


@dataclass(frozen=True, slots=True)
class _Row:
    """What is known of one file after it was looked at."""

    bytes: int
    mtime_ns: int
    header: Header
    was_read: bool


_Known = Mapping[str, tuple[int, int, Header]]


def build_index(
    source: Path,
    *,
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
    previous: Index | None = None,
    num_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    path_column: str = "path",
    label_column: str | None = "label",
    root: Path | None = None,
) -> Index:
    """Build the index of a folder or a table; a file that cannot be used becomes a row with a status.

    Args:
        source: a folder (see ``sources.folder``) or a ``.csv`` or ``.parquet`` file (see ``sources.table``).
        fractions: shares of the splits where the source names none; 0.8 train, 0.1 val, 0.1 test by default.
        seed: of the hash that assigns those splits.
        previous: an older index; files with the same path, bytes and mtime are not opened again.
        num_threads: threads that read headers; by default two per CPU, at least 4.
        progress: called in this thread with the number of files done and of all.
        path_column: of a table.
        label_column: of a table; None for no labels.
        root: where the relative paths of a table start; by default its folder.

    Raises:
        SourceError: the source cannot be used as a whole: missing, empty, or a table that makes no sense.
    """
    if num_threads is not None and num_threads < 1:
        raise SourceError(f"num_threads: wanted 1 or more, got {num_threads}; leave it out for the default")
    if fractions is not None:
        check_fractions(fractions)
    listing = _list(Path(source), path_column, label_column, root)
    rows = _look_at(listing, _known(previous), num_threads, progress)
    by_hash = listing.splits is None
    shares = dict(fractions or DEFAULT_FRACTIONS)
    splits = assign_splits(listing.keys, shares, seed) if listing.splits is None else listing.splits
    description: dict[str, object] = {
        "kind": listing.kind,
        "root": as_text(str(listing.root)),
        "split_from": "hash" if by_hash else "source",
        **({"fractions": shares, "seed": seed} if by_hash else {}),
        **listing.notes,
        "read": sum(row.was_read for row in rows),
        "reused": sum(not row.was_read for row in rows),
        "moved": _num_moved(previous, listing.keys, splits),
    }
    return _index(listing, rows, splits, description)


def _list(source: Path, path_column: str, label_column: str | None, root: Path | None) -> Listing:
    if source.is_file():
        if source.suffix.lower() not in SUFFIXES:
            raise SourceError(
                f"wanted a folder, a .csv or a .parquet file, got the file {str(source)!r};"
                " give its folder, or a table that lists it"
            )
        return list_table(source, path_column, label_column, root)
    if not source.exists():
        siblings = [item.name for item in source.parent.iterdir()] if source.parent.is_dir() else []
        hint = nearest(source.name, siblings) or "check the path"
        raise SourceError(f"wanted a folder or a table, got nothing at {str(source)!r}; {hint}")
    return list_folder(source)


def _known(previous: Index | None) -> _Known:
    """Headers of an older index by uri, without those whose status may change while the file does not."""
    if previous is None:
        return {}
    names = (
        "uri",
        "bytes",
        "mtime_ns",
        "width",
        "height",
        "channels",
        "mode",
        "format",
        "orientation",
        "status",
    )
    columns = [previous.table[name].to_pylist() for name in names]
    return {
        uri: (num_bytes, mtime_ns, Header(*header))
        for uri, num_bytes, mtime_ns, *header in zip(*columns, strict=True)
        if not header[-1].startswith((CANNOT_OPEN, _BAD_MASK))
    }


def _look_at(
    listing: Listing, known: _Known, num_threads: int | None, progress: Callable[[int, int], None] | None
) -> list[_Row]:
    """Look at every file, in order. Threads: header reading waits for disks and networks, and for C code."""
    num_threads = num_threads or min(32, max(4, 2 * (os.cpu_count() or 1)))
    masks: Sequence[str | None] = listing.masks or [None] * len(listing.uris)
    files = list(zip(listing.uris, masks, strict=True))
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    rows: list[_Row] = []
    with QuietPillow(), ThreadPoolExecutor(num_threads, thread_name_prefix="lightwell-index") as pool:
        try:
            for found in _in_order(pool, chunks, known, ahead=4 * num_threads):
                rows += found
                if progress is not None:
                    progress(len(rows), len(files))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for the rest
            raise
    return rows


def _in_order(
    pool: ThreadPoolExecutor, chunks: Sequence[Sequence[tuple[str, str | None]]], known: _Known, ahead: int
) -> Iterator[list[_Row]]:
    waiting = iter(chunks)
    running: list[Future[list[_Row]]] = [
        pool.submit(_chunk, chunk, known) for chunk in islice(waiting, ahead)
    ]
    while running:
        yield running.pop(0).result()
        running += [pool.submit(_chunk, chunk, known) for chunk in islice(waiting, 1)]


def _chunk(files: Sequence[tuple[str, str | None]], known: _Known) -> list[_Row]:
    return [_file(uri, mask, known) for uri, mask in files]


def _file(uri: str, mask: str | None, known: _Known) -> _Row:
    if as_text(uri) != uri:
        return _Row(0, 0, Header(status=_BAD_NAME), was_read=True)
    try:
        found = os.stat(uri)  # noqa: PTH116
    except (OSError, ValueError):
        return _Row(0, 0, read_header(uri), was_read=True)  # says why
    num_bytes = found.st_size if stat.S_ISREG(found.st_mode) else 0
    old_bytes, old_mtime_ns, header = known.get(uri, (-1, -1, Header()))
    was_read = (old_bytes, old_mtime_ns) != (num_bytes, found.st_mtime_ns)
    if was_read:
        header = read_header(uri)
    if header.status == "ok" and mask is not None and not os.path.isfile(mask):  # noqa: PTH113
        header = replace(header, status=one_line(f"{_BAD_MASK}{mask}"))
    return _Row(num_bytes, found.st_mtime_ns, header, was_read)


def _num_moved(previous: Index | None, keys: Sequence[str], splits: Sequence[str | None]) -> int:
    """How many known samples changed their split, as they do when seed or fractions change."""
    if previous is None:
        return 0
    old = dict(zip(previous.table["key"].to_pylist(), previous.table["split"].to_pylist(), strict=True))
    return sum(old.get(key, split) != split for key, split in zip(keys, splits, strict=True))


def _index(
    listing: Listing, rows: Sequence[_Row], splits: Sequence[str | None], description: Mapping[str, object]
) -> Index:
    headers = [row.header for row in rows]
    empty = [None] * len(rows)
    columns = {
        "key": [as_text(key) for key in listing.keys],
        "uri": [as_text(uri) for uri in listing.uris],
        "bytes": [row.bytes for row in rows],
        "mtime_ns": [row.mtime_ns for row in rows],
        "width": [header.width for header in headers],
        "height": [header.height for header in headers],
        "channels": [header.channels for header in headers],
        "mode": [header.mode for header in headers],
        "format": [header.format for header in headers],
        "orientation": [header.orientation for header in headers],
        "label": listing.labels,
        "mask": listing.masks or empty,
        "boxes": listing.boxes or empty,
        "split": splits,
        "status": [header.status for header in headers],
    }
    metadata = {
        CLASSES: json.dumps(listing.classes).encode(),
        SOURCE: json.dumps(description).encode(),
    }
    arrays = [pa.array(columns[field.name], type=field.type) for field in SCHEMA]
    return Index(pa.Table.from_arrays(arrays, schema=SCHEMA.with_metadata(metadata)), listing.classes)
