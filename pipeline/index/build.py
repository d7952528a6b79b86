"""Index builder: lists a source, reads headers in parallel and assigns splits; unchanged files are not read again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import SourceError, did_you_mean
from ..formats.headers import Header, one_line
from ..storage.local import FileStat, is_remote, without_file_scheme
from ..storage.storage import DEFAULT_MAX_WAIT_S, Storage
from ..storage.uri_rules import UriRules
from ..uris import public_uri, redact_uris
from .file_info import FILE_INFO_COLUMNS, HEADER_COLUMNS, FileInfo, file_info_from_row
from .index import BOX_CLASSES, CLASSES, KEYPOINT_NAMES, SCHEMA, SHARDS, SOURCE, Index, names_metadata
from .readers import Readers, ThreadReaders
from .scan import chunk_size, file_chunks, known_file_infos
from .scan_checkpoint import ScanCheckpoint
from .sources.annotated_images import AnnotationKind
from .sources.annotations import list_annotated
from .sources.boxes import fit_annotations
from .sources.folder import list_folder
from .sources.labels import LabelKind, note_similar_classes
from .sources.listing import Listing, as_text
from .sources.table import SUFFIXES, list_table
from .sources.tar_samples import ShardContent, ShardSample
from .sources.walk import Folder, folder_from_listing, scan_folder
from .sources.webdataset import find_shards, is_complete, is_tar_pattern, list_shards, shard_name
from .splits import DEFAULT_FRACTIONS, assign_splits, check_fractions

Progress = Callable[[int, int], None]


def build_index(
    source: Path | str,
    *,
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
    previous: Index | None = None,
    num_threads: int | None = None,
    progress: Progress | None = None,
    path_column: str = "path",
    label_column: str | None = "label",
    root: Path | str | None = None,
    hash_content: bool = False,
    max_wait_s: float = DEFAULT_MAX_WAIT_S,
    label_kind: LabelKind = "auto",
    label_separator: str | None = None,
    label_columns: Sequence[str] = (),
    annotations: AnnotationKind | Literal["auto", "none"] = "auto",
    allow_protocols: Sequence[str] = (),
    forbid_private_addresses: bool | None = None,
    readers: Readers | None = None,
    checkpoint: ScanCheckpoint | None = None,
) -> Index:
    """Build the index of a folder, a table or tar shards; an unusable file becomes a row with an error status.

    Args:
        source: a folder (see ``sources.folder``), a ``.csv`` or ``.parquet`` file (see ``sources.table``), or ``.tar``
            shards: a folder, a file, a glob or a brace list (see ``sources.webdataset``). A path or a URI. Or local
            annotations with boxes: a COCO ``.json``, a YOLO ``.yaml`` or folder, a Pascal VOC folder.
        fractions: fraction of each split, for sources without splits; by default 0.8 train, 0.1 val, 0.1 test.
        seed: of the hash that assigns the splits.
        previous: an older index; files with the same path, size and mtime are not opened again.
        num_threads: threads that read headers; by default two per CPU, at least 4.
        progress: called in this thread with the number of finished files and their total.
        path_column: column of a table with the paths.
        label_column: column of a table, or field of a shard's ``.json`` members, with the labels; None for no labels.
        root: base folder of relative paths in a table; by default the table's folder.
        hash_content: read every file completely and store a hash of its bytes, which is verified when the file is used.
        max_wait_s: seconds without a response after which a remote source counts as unavailable.
        label_kind: whether labels of tables and shards are text or class numbers; ``auto`` applies the rule in
            ``sources.labels``.
        label_separator: separates several labels in one cell; by default ``|``. Empty: a cell is one label.
        label_columns: of a table, instead of ``label_column``: one column per class with 1 and 0.
        annotations: annotation format; ``auto`` detects it from the file name or folder layout, ``none`` reads a folder
            by its class folders only.
        allow_protocols: URI protocols that are allowed in addition to those of ``storage.uri_rules``.
        forbid_private_addresses: refuse HTTP addresses of private networks; see ``storage.uri_rules``.
        readers: scan the files or shards; by default threads of this process. The rows do not depend on it.
        checkpoint: stores scanned files periodically, so that an interrupted run can be resumed.

    Raises:
        OutputError: the checkpoint cannot be written.
        RunError: the readers cannot access the files.
        SourceUnavailableError: a remote source does not respond.
        SourceError: the source cannot be used: missing, empty, or an invalid table.
    """
    if num_threads is not None and num_threads < 1:
        raise SourceError(f"num_threads: expected 1 or more, got {num_threads}; leave it out for the default")
    if not str(source).strip() or "\0" in str(source):
        raise SourceError(
            f"expected a folder, a table or .tar shards, got {str(source)!r}; name one, or write . for this folder"
        )
    if fractions is not None:
        check_fractions(fractions)
    request = _Request(
        without_file_scheme(str(source)),
        path_column,
        label_column,
        root,
        hash_content,
        label_kind,
        label_separator,
        tuple(label_columns),
        annotations,
    )
    rules = UriRules.from_env(allow_protocols, forbid_private_addresses=forbid_private_addresses)
    for uri in filter(is_remote, (request.source, str(root or ""))):
        rules.check(uri)
    storage = Storage(max_wait_s, rules)
    if checkpoint is not None:
        checkpoint.load({**asdict(request), "previous": previous and previous.fingerprint()})
    scan = _IndexScan(storage, readers or ThreadReaders(num_threads or 0), previous, checkpoint, progress)
    try:
        with checkpoint or nullcontext():
            listing = _list(request, scan)
            rows = (
                scan.scan_files(listing, hash_content=hash_content)
                if listing.file_infos is None
                else listing.file_infos
            )
            listing.remarks.add("refused", "files, each with a row", count=len(listing.refused))
            listing, rows = fit_annotations(listing, rows)
    finally:
        storage.close()
    note_similar_classes(listing.classes, listing.remarks)
    by_hash = listing.splits is None
    shares = dict(fractions or DEFAULT_FRACTIONS)
    splits = assign_splits(listing.keys, shares, seed) if listing.splits is None else listing.splits
    description: dict[str, object] = {
        "kind": listing.kind,
        "root": public_uri(as_text(str(listing.root))),
        "split_from": "hash" if by_hash else "source",
        **({"fractions": shares, "seed": seed} if by_hash else {}),
        **listing.notes,
        "remarks": listing.remarks.dump(),
        "read": sum(row.was_read for row in rows),
        "reused": sum(not row.was_read for row in rows),
        "moved": _num_moved(previous, listing.keys, splits),
    }
    return _index(listing, rows, splits, description)


def index_files(paths: Sequence[Path | str], *, num_threads: int | None = None) -> Index:
    """Build the index of single files or URIs, in this order, without labels and splits; a bad one gets an error status.

    Args:
        paths: different files; each is the key of its row.
        num_threads: threads that read headers; by default two per CPU, at least 4.
    """
    uris = [str(path) if is_remote(str(path)) else str(Path(path).absolute()) for path in paths]
    listing = Listing("flat", "", [*map(str, paths)], uris, [-1] * len(uris), (), [None] * len(uris))
    rules = UriRules.from_env((), forbid_private_addresses=None)
    for uri in filter(is_remote, uris):
        rules.check(uri)
    storage = Storage(DEFAULT_MAX_WAIT_S, rules)
    scan = _IndexScan(storage, ThreadReaders(num_threads or 0), None, None, None)
    try:
        rows = scan.scan_files(listing, hash_content=False)
    finally:
        storage.close()
    description: dict[str, object] = {"kind": "flat", "root": "", "split_from": "source", "remarks": []}
    return _index(
        listing, rows, [None] * len(rows), description | {"read": len(rows), "reused": 0, "moved": 0}
    )


def with_split_seed(index: Index, seed: int, previous: Index | None = None) -> Index:
    """Assign the splits of an index, made by a hash, again with another seed.

    Args:
        index: from ``build_index``.
        seed: of the hash.
        previous: an older index, to count the samples whose split changed.
    """
    keys, source = index.table["key"].to_pylist(), index.source
    splits = assign_splits(keys, source["fractions"], seed)
    source |= {"seed": seed, "moved": _num_moved(previous, keys, splits)}
    place = SCHEMA.get_field_index("split")
    table = index.table.set_column(place, SCHEMA.field(place), pa.array(splits, SCHEMA.field(place).type))
    metadata = {**table.schema.metadata, SOURCE: json.dumps(source).encode()}
    return replace(index, table=table.replace_schema_metadata(metadata))


@dataclass(frozen=True)
class _Request:
    """Arguments of ``build_index`` that decide its rows; the source without ``file://``."""

    source: str
    path_column: str
    label_column: str | None
    root: Path | str | None
    hash_content: bool
    label_kind: LabelKind
    label_separator: str | None
    label_columns: tuple[str, ...]
    annotations: AnnotationKind | Literal["auto", "none"]


@dataclass(frozen=True)
class _IndexScan:
    """Scans files or shards, reusing known rows, with checkpoints and progress."""

    storage: Storage
    readers: Readers
    previous: Index | None
    checkpoint: ScanCheckpoint | None
    progress: Progress | None

    def scan_files(self, listing: Listing, *, hash_content: bool) -> list[FileInfo]:
        """Scan the files of a listing, in order; refused ones get their status without being opened."""
        if listing.refused:
            some = [place for place in range(len(listing.uris)) if place not in listing.refused]
            opened = iter(self.scan_files(listing.subset(some), hash_content=hash_content))
            return [
                FileInfo(0, 0, Header(status=one_line(listing.refused[place])), was_read=False)
                if place in listing.refused
                else next(opened)
                for place in range(len(listing.uris))
            ]
        known = known_file_infos(self.previous)
        if self.checkpoint is not None:
            known |= self.checkpoint.files
        num_files = len(listing.uris)
        rows: list[FileInfo] = []
        chunks = file_chunks(listing, known, hash_content=hash_content)
        num_chunks = -(-num_files // chunk_size(listing))
        with closing(self.readers.scan(chunks, num_chunks=num_chunks, storage=self.storage)) as results:
            for infos in results:
                if self.checkpoint is not None:
                    self.checkpoint.add_files(listing.uris[len(rows) : len(rows) + len(infos)], infos)
                rows += infos
                self.report(len(rows), num_files)
        return rows

    def scan_shards(self, shards: Mapping[str, FileStat | None], request: _Request) -> Listing:
        """Read shards and list their samples."""
        known = known_shards(self.previous, request.label_column)
        if self.checkpoint is not None:
            known |= self.checkpoint.shards
        return list_shards(
            shards,
            self.storage,
            label_field=request.label_column,
            known=known,
            hash_content=request.hash_content,
            readers=self.readers,
            note=partial(self._note_shard, len(shards)),
            label_kind=request.label_kind,
            label_separator=request.label_separator,
        )

    def _note_shard(self, num_shards: int, num_done: int, uri: str, read: ShardContent | None) -> None:
        if self.checkpoint is not None and read is not None and is_complete(read.samples):
            self.checkpoint.add_shard(uri, read)
        self.report(num_done, num_shards)

    def report(self, num_done: int, num_total: int) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(num_done, num_total)


def _list(request: _Request, scan: _IndexScan) -> Listing:
    source, storage = request.source, scan.storage
    if (listing := list_annotated(source, request.root, request.annotations)) is not None:
        return listing
    shards: Mapping[str, FileStat | None] | None = None
    folder: Folder | None = None
    if is_tar_pattern(source):
        shards = find_shards(source, storage)
    elif public_uri(source).lower().endswith(SUFFIXES) and (is_remote(source) or Path(source).is_file()):
        return list_table(
            source,
            request.path_column,
            request.label_column,
            request.root,
            storage,
            label_kind=request.label_kind,
            label_separator=request.label_separator,
            label_columns=request.label_columns,
        )
    else:
        folder = _scan_source_folder(source, storage)
        if (paths := list(folder.walk())) and all(map(is_tar_pattern, paths)):
            shards = {path: folder.file_stats.get(path) for path in paths}
    if shards is None:
        assert folder is not None
        return list_folder(folder)
    return scan.scan_shards(shards, request)


def _scan_source_folder(source: str, storage: Storage) -> Folder:
    if is_remote(source):
        try:
            root = storage.remote().canonical(source)
            return folder_from_listing(root, storage.remote().find(root))
        except (FileNotFoundError, PermissionError) as error:
            raise SourceError(
                f"expected a folder, a table or .tar shards, got nothing to list at {public_uri(source)!r} "
                f"({redact_uris(str(error))}); check the URI"
            ) from error
    path = Path(source)
    if path.is_file():
        raise SourceError(
            f"expected a folder, a .csv or a .parquet file, or .tar shards, got the file {source!r};"
            " give its folder, or a table that lists it"
        )
    if not path.exists():
        siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, siblings) or "check the path"
        raise SourceError(f"expected a folder or a table, got nothing at {source!r}; {hint}")
    return scan_folder(source)


def known_shards(previous: Index | None, label_field: str | None) -> dict[str, ShardContent]:
    """Collect the samples of the completely read shards of an older index, with their original labels."""
    metadata = {} if previous is None else previous.table.schema.metadata or {}
    if previous is None or SHARDS not in metadata:
        return {}
    source = json.loads(metadata[SOURCE])
    if source.get("label_field") != label_field:
        return {}
    identities = json.loads(metadata[SHARDS])
    remarks = {uri: one.pop("remarks", []) for uri, one in identities.items()}
    found = {uri: FileStat(**one) for uri, one in identities.items()}
    members: dict[str, list[ShardSample]] = {uri: [] for uri in found}
    for row in previous.table.filter(pc.is_in(previous.table["uri"], pa.array(found))).to_pylist():
        label: Any = None if row["label"] < 0 else previous.classes[row["label"]]
        if row["labels"] is not None:
            label = [previous.classes[number] for number in row["labels"]]
        key = row["key"].removeprefix(shard_name(row["uri"], source["root"])).removeprefix("/")
        members[row["uri"]].append(ShardSample(key, label, file_info_from_row(row, was_read=False)))
    return {uri: ShardContent(one, members[uri], remarks[uri]) for uri, one in found.items()}


def _num_moved(previous: Index | None, keys: Sequence[str], splits: Sequence[str | None]) -> int:
    """Count known samples whose split changed, as it does with another seed or other fractions."""
    if previous is None:
        return 0
    old = dict(zip(previous.table["key"].to_pylist(), previous.table["split"].to_pylist(), strict=True))
    return sum(old.get(key, split) != split for key, split in zip(keys, splits, strict=True))


def _index(
    listing: Listing,
    rows: Sequence[FileInfo],
    splits: Sequence[str | None],
    description: Mapping[str, object],
) -> Index:
    empty = [None] * len(rows)
    columns: dict[str, Sequence[Any]] = {
        "key": [as_text(key) for key in listing.keys],
        "uri": [as_text(uri) for uri in listing.uris],
        **{name: [getattr(row, name) for row in rows] for name in FILE_INFO_COLUMNS},
        **{name: [getattr(row.header, name) for row in rows] for name in HEADER_COLUMNS},
        "label": listing.labels,
        "labels": listing.label_sets or empty,
        "mask": listing.masks or empty,
        "boxes": listing.boxes or empty,
        "box_labels": listing.box_labels or empty,
        "keypoints": listing.keypoints or empty,
        "groups": listing.groups or empty,
        "split": splits,
    }
    names = {
        CLASSES: listing.classes,
        BOX_CLASSES: listing.box_classes,
        KEYPOINT_NAMES: listing.keypoint_names,
    }
    metadata = {**names_metadata(names), SOURCE: json.dumps(description).encode()}
    if listing.shards:
        identities = {
            uri: {**asdict(read.file_stat), "remarks": list(read.remarks)}
            for uri, read in listing.shards.items()
        }
        metadata[SHARDS] = json.dumps(identities).encode()
    arrays = [pa.array(columns[field.name], type=field.type) for field in SCHEMA]
    return Index(pa.Table.from_arrays(arrays, schema=SCHEMA.with_metadata(metadata)), listing.classes)
