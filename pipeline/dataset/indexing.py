"""Builds an index: lists a source, reads headers in parallel, assigns splits; reads only what changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import SourceError, nearest
from .headers import Header
from .index import CLASSES, SCHEMA, SHARDS, SOURCE, Index
from .looking import Looker, known_files, look_at
from .seen import Seen
from .sources.folder import list_tree
from .sources.listing import Listing, as_text
from .sources.members import Member
from .sources.shards import Known, find_shards, list_shards, names_shards, shard_name
from .sources.storage import DEFAULT_MAX_WAIT_S, Storage
from .sources.store import Found, is_remote, without_file_scheme
from .sources.table import SUFFIXES, list_table
from .sources.tree import Folder, scan_folder, tree_of
from .splits import DEFAULT_FRACTIONS, assign_splits, check_fractions

MAX_THREADS = 32
HEADER_COLUMNS = ("width", "height", "channels", "mode", "format", "orientation", "status")
SEEN_COLUMNS = ("bytes", "mtime_ns", "etag", "offset", "hash", "mask_offset", "mask_bytes")


def build_index(
    source: Path | str,
    *,
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
    previous: Index | None = None,
    num_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    path_column: str = "path",
    label_column: str | None = "label",
    root: Path | str | None = None,
    hash_content: bool = False,
    max_wait_s: float = DEFAULT_MAX_WAIT_S,
) -> Index:
    """Build the index of a folder, a table or tar shards; a file that cannot be used becomes a row with a status.

    Args:
        source: a folder (see ``sources.folder``), a ``.csv`` or ``.parquet`` file (see ``sources.table``), or ``.tar``
            shards: a folder, a file, a glob or a brace list of them (see ``sources.shards``). A path or a URI.
        fractions: shares of the splits where the source names none; 0.8 train, 0.1 val, 0.1 test by default.
        seed: of the hash that assigns those splits.
        previous: an older index; files with the same path, bytes and mtime are not opened again.
        num_threads: threads that read headers; by default two per CPU, at least 4.
        progress: called in this thread with the number of files done and of all.
        path_column: of a table.
        label_column: of a table, or the field of a shard's ``.json`` members; None for no labels.
        root: where the relative paths of a table start; by default its folder.
        hash_content: read all of every file and keep a hash of its bytes, which is checked when the file is used.
        max_wait_s: how long a remote source may give no answer.

    Raises:
        SourceDownError: a remote source gives no answer.
        SourceError: the source cannot be used as a whole: missing, empty, or a table that makes no sense.
    """
    if num_threads is not None and num_threads < 1:
        raise SourceError(f"num_threads: wanted 1 or more, got {num_threads}; leave it out for the default")
    if fractions is not None:
        check_fractions(fractions)
    threads = num_threads or min(MAX_THREADS, max(4, 2 * (os.cpu_count() or 1)))
    storage = Storage(max_wait_s)
    try:
        listing = _list(
            _Request(without_file_scheme(str(source)), path_column, label_column, root, hash_content),
            storage,
            previous,
            threads,
            progress,
        )
        rows = listing.seen
        if rows is None:
            looker = Looker(storage, known_files(previous), hash_content)
            rows = look_at(listing, looker, threads, progress)
    finally:
        storage.close()
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


@dataclass(frozen=True)
class _Request:
    """What is asked for, with ``file://`` already taken off."""

    source: str
    path_column: str
    label_column: str | None
    root: Path | str | None
    hash_content: bool


def _list(
    request: _Request,
    storage: Storage,
    previous: Index | None,
    num_threads: int,
    progress: Callable[[int, int], None] | None,
) -> Listing:
    source = request.source
    shards: Mapping[str, Found | None] | None = None
    tree: Folder | None = None
    if names_shards(source):
        shards = find_shards(source, storage)
    elif source.lower().endswith(SUFFIXES) and (is_remote(source) or Path(source).is_file()):
        return list_table(source, request.path_column, request.label_column, request.root, storage)
    else:
        tree = _tree(source, storage)
        if (paths := list(tree.walk())) and all(map(names_shards, paths)):
            shards = {path: tree.found.get(path) for path in paths}
    if shards is None:
        assert tree is not None
        return list_tree(tree)
    return list_shards(
        shards,
        storage,
        label_field=request.label_column,
        known=known_shards(previous, request.label_column),
        hash_content=request.hash_content,
        num_threads=num_threads,
        progress=progress,
    )


def _tree(source: str, storage: Storage) -> Folder:
    if is_remote(source):
        try:
            root = storage.remote().canonical(source)
            return tree_of(root, storage.remote().find(root))
        except (FileNotFoundError, PermissionError) as error:
            raise SourceError(
                f"wanted a folder, a table or .tar shards, got nothing to list at {source!r} ({error}); check the URI"
            ) from error
    path = Path(source)
    if path.is_file():
        raise SourceError(
            f"wanted a folder, a .csv or a .parquet file, or .tar shards, got the file {source!r};"
            " give its folder, or a table that lists it"
        )
    if not path.exists():
        siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, siblings) or "check the path"
        raise SourceError(f"wanted a folder or a table, got nothing at {source!r}; {hint}")
    return scan_folder(source)


def known_shards(previous: Index | None, label_field: str | None) -> Known:
    """Collect the members of the whole shards of an older index, with labels as they were written."""
    metadata = {} if previous is None else previous.table.schema.metadata or {}
    if previous is None or SHARDS not in metadata:
        return {}
    source = json.loads(metadata[SOURCE])
    if source.get("label_field") != label_field:
        return {}
    found = {uri: Found(**told) for uri, told in json.loads(metadata[SHARDS]).items()}
    members: dict[str, list[Member]] = {uri: [] for uri in found}
    for row in previous.table.filter(pc.is_in(previous.table["uri"], pa.array(found))).to_pylist():
        label = None if row["label"] < 0 else previous.classes[row["label"]]
        key = row["key"].removeprefix(shard_name(row["uri"], source["root"])).removeprefix("/")
        seen = Seen(
            header=Header(*(row[name] for name in HEADER_COLUMNS)),
            was_read=False,
            **{name: row[name] for name in SEEN_COLUMNS},
        )
        members[row["uri"]].append(Member(key, label, seen))
    return {uri: (told, members[uri]) for uri, told in found.items()}


def _num_moved(previous: Index | None, keys: Sequence[str], splits: Sequence[str | None]) -> int:
    """How many known samples changed their split, as they do when seed or fractions change."""
    if previous is None:
        return 0
    old = dict(zip(previous.table["key"].to_pylist(), previous.table["split"].to_pylist(), strict=True))
    return sum(old.get(key, split) != split for key, split in zip(keys, splits, strict=True))


def _index(
    listing: Listing, rows: Sequence[Seen], splits: Sequence[str | None], description: Mapping[str, object]
) -> Index:
    empty = [None] * len(rows)
    columns: dict[str, Sequence[Any]] = {
        "key": [as_text(key) for key in listing.keys],
        "uri": [as_text(uri) for uri in listing.uris],
        **{name: [getattr(row, name) for row in rows] for name in SEEN_COLUMNS},
        **{name: [getattr(row.header, name) for row in rows] for name in HEADER_COLUMNS},
        "label": listing.labels,
        "mask": listing.masks or empty,
        "boxes": listing.boxes or empty,
        "split": splits,
    }
    metadata = {
        CLASSES: json.dumps(listing.classes).encode(),
        SOURCE: json.dumps(description).encode(),
    }
    if listing.shards:
        told = {uri: asdict(found) for uri, found in listing.shards.items()}
        metadata[SHARDS] = json.dumps(told).encode()
    arrays = [pa.array(columns[field.name], type=field.type) for field in SCHEMA]
    return Index(pa.Table.from_arrays(arrays, schema=SCHEMA.with_metadata(metadata)), listing.classes)
