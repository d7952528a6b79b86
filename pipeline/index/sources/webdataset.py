"""WebDataset shards: uncompressed tar files of samples, indexed once and then read by byte ranges.

A member's key is its path up to the first dot of its name; members with the same key form a sample::

    train-000.tar   a/01.jpg  a/01.cls  a/01.seg.png      image, class, mask
                    a/02.png  a/02.json                   image, JSON with the class

Besides the label these fields of ``.json`` are read, as written by ``lightwell materialize``: ``class`` (the name of a class
number), ``split``, ``has_mask``, ``boxes``, ``box_labels``, ``box_classes``, ``keypoints`` and ``keypoint_names``.

Format: https://github.com/webdataset/webdataset ("The WebDataset Format").
"""

from __future__ import annotations

import fnmatch
import glob
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ...errors import SourceError
from ...formats.headers import CANNOT_OPEN, Header, one_line
from ...storage.local import FileStat, is_remote
from ...storage.range_file import SHARD_BYTES, RangeFile
from ...storage.storage import Storage
from ...uris import public_uri
from ..file_info import FileInfo
from ..readers import Readers
from ..splits import canonical_split, split_names
from .labels import LabelKind, Labels, read_labels
from .listing import Listing, ShardIdentity, as_text
from .remarks import Remarks
from .tar_annotations import read_annotations
from .tar_samples import ShardContent, ShardSample, read_samples

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_FIRST_WORD = re.compile(r"[A-Za-z]+")
_WILD = re.compile(r"[*?\[]")

KnownShards = Mapping[str, ShardContent]
"""Stats and samples of the completely read shards of an older index, by URI."""


def is_tar_pattern(source: str) -> bool:
    """Return whether a source is a tar file, or a pattern of tar files."""
    return public_uri(source).endswith(".tar")


def expand_braces(pattern: str) -> list[str]:
    """Expand ``{000..002}`` and ``{a,b}`` like a shell; a range keeps its leading zeros."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    numbers = _RANGE.fullmatch(match[1])
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        width = len(numbers[1]) if numbers[1].startswith("0") else 0
        step = 1 if first <= last else -1
        words = [f"{number:0{width}}" for number in range(first, last + step, step)]
    else:
        words = match[1].split(",")
    return [
        text
        for word in words
        for text in expand_braces(f"{pattern[: match.start()]}{word}{pattern[match.end() :]}")
    ]


def find_shards(source: str, storage: Storage) -> dict[str, FileStat | None]:
    """Find the shards of a path, URI, glob or brace list, in order.

    Raises:
        SourceError: there are none.
    """
    shards: dict[str, FileStat | None] = {}
    for pattern in expand_braces(source):
        if not _WILD.search(posixpath.basename(public_uri(pattern)) if is_remote(pattern) else pattern):
            shards[pattern if is_remote(pattern) else os.path.abspath(pattern)] = None  # noqa: PTH100
        elif is_remote(pattern):
            folder, _, name = pattern.rpartition("/")
            folder = storage.remote().canonical(folder)
            wanted = re.compile(fnmatch.translate(name))
            listed = storage.remote().find(folder)
            shards |= {
                uri: found
                for uri, found in sorted(listed.items())
                if posixpath.dirname(uri) == folder and wanted.fullmatch(posixpath.basename(uri))
            }
        else:
            shards |= dict.fromkeys(sorted(map(os.path.abspath, glob.glob(pattern))))  # noqa: PTH207
    if not shards:
        raise SourceError(
            f"expected tar shards, got none that match {public_uri(source)!r}; check the pattern"
        )
    return shards


def list_shards(
    shards: Mapping[str, FileStat | None],
    storage: Storage,
    *,
    label_field: str | None,
    known: KnownShards,
    hash_content: bool,
    readers: Readers,
    note: Callable[[int, str, ShardContent | None], None],
    label_kind: LabelKind = "auto",
    label_separator: str | None = None,
) -> Listing:
    """List the samples of shards, reading shards in parallel; known unchanged ones are not opened.

    Labels are the ``.cls`` members, or without these the field ``label_field`` of the ``.json`` members. Splits are the
    shards' folders or the first words of their names (train, val, test and common spellings), if every shard has one.
    Of a truncated shard, the samples before the end are listed, and a row with an error status.

    Raises:
        SourceError: no shard can be opened, or the labels are invalid.
        SourceUnavailableError: their source does not respond.
    """
    root = _common_folder(shards)
    chunks = [
        ShardChunk.create(uri, found, known, label_field=label_field, hash_content=hash_content)
        for uri, found in shards.items()
    ]
    done: list[tuple[FileStat | None, Sequence[ShardSample]]] = []
    identities: dict[str, ShardIdentity] = {}
    remarks = Remarks()
    with closing(readers.scan(chunks, num_chunks=len(chunks), storage=storage)) as results:
        for uri, (found, members, dumped) in zip(shards, results, strict=True):
            done.append((found, known[uri].samples if members is None else members))
            counted = known[uri].remarks if members is None else dumped
            remarks.update(counted)
            read = None if found is None else ShardContent(found, done[-1][1], counted)
            note(len(done), uri, read)
            if read is not None and is_complete(read.samples) and not any(one.fields for one in read.samples):
                identities[uri] = ShardIdentity(read.file_stat, read.remarks)
    if all(found is None for found, _ in done):
        first = next(iter(shards))
        reason = done[0][1][0].file_info.header.status
        raise SourceError(
            f"expected tar shards, got none that can be opened ({first}: {reason}); check the paths"
        )
    rows = [(uri, sample) for uri, (_, some) in zip(shards, done, strict=True) for sample in some]
    return _listing(
        root, shards, rows, _labels(rows, label_field, remarks, label_kind, label_separator), remarks,
        identities, {"num_shards": len(shards), "label_field": label_field},
    )  # fmt: skip


Rows = Sequence[tuple[str, ShardSample]]
"""Samples with the URIs of their shards."""


def _labels(
    rows: Rows, label_field: str | None, remarks: Remarks, kind: LabelKind, separator: str | None
) -> Labels:
    """Map the labels to class numbers; the field ``class`` names a class number, or replaces a missing label."""
    if label_field is None:
        return Labels([-1] * len(rows), ())
    names = [sample.fields.get("class") for _, sample in rows]
    cells = [
        name if sample.label is None else sample.label for (_, sample), name in zip(rows, names, strict=True)
    ]
    given = names if any(name is not None for name in names) else None
    return read_labels(cells, given, label_field, remarks=remarks, kind=kind, separator=separator)


def _splits(rows: Rows, shards: Iterable[str], root: str, remarks: Remarks) -> list[str | None] | None:
    """Return the splits: from the field ``split`` of samples, else from the names of all shards."""
    by_shard = {uri: _split_of(uri, root) for uri in shards}
    written = [sample.fields.get("split") for _, sample in rows]
    fields = [one if isinstance(one, str) and one.strip() else None for one in written]
    if any(fields):
        names = split_names([one for one in fields if one], remarks)
        splits = [names[one] if one else by_shard[uri] for one, (uri, _) in zip(fields, rows, strict=True)]
        remarks.add("left_out", "samples without a split, which are in none", count=splits.count(None))
        return splits
    without = [shard_name(uri, root) for uri, split in by_shard.items() if not split]
    if not without:
        return [by_shard[uri] for uri, _ in rows]
    if len(without) < len(by_shard):
        what = "shards without a split in their name, so that a hash of the key splits all shards"
        remarks.add("assumed", what, without[0], count=len(without))
    return None


def _listing(
    root: str,
    shards: Mapping[str, FileStat | None],
    rows: Rows,
    labels: Labels,
    remarks: Remarks,
    identities: Mapping[str, ShardIdentity],
    notes: Mapping[str, object],
) -> Listing:
    masks = [uri if sample.file_info.mask_offset is not None else None for uri, sample in rows]
    described = read_annotations([sample.fields for _, sample in rows], remarks)
    return Listing(
        kind="shards",
        root=root,
        keys=_unique(f"{shard_name(uri, root)}/{sample.key}".rstrip("/") for uri, sample in rows),
        uris=[uri for uri, _ in rows],
        labels=labels.numbers,
        classes=labels.classes,
        label_sets=labels.sets,
        remarks=remarks,
        splits=_splits(rows, shards, root, remarks),
        masks=masks if any(masks) else None,
        boxes=described.boxes,
        box_labels=described.box_labels,
        box_classes=described.box_classes,
        keypoints=described.keypoints,
        keypoint_names=described.keypoint_names,
        file_infos=[sample.file_info for _, sample in rows],
        shards=identities,
        notes=notes,
    )


def is_complete(members: Iterable[ShardSample]) -> bool:
    """Return whether the content of a shard can change only with the shard."""
    return not any(one.file_info.header.status.startswith(CANNOT_OPEN) for one in members)


@dataclass(frozen=True)
class ShardChunk:
    """One shard to read, unless it is unchanged."""

    uri: str
    file_stat: FileStat | None
    """From a remote listing."""
    known_stat: FileStat | None
    """Of the known shard, if all that is needed of it is known."""
    label_field: str | None
    hash_content: bool

    @classmethod
    def create(
        cls,
        uri: str,
        file_stat: FileStat | None,
        known: KnownShards,
        *,
        label_field: str | None,
        hash_content: bool,
    ) -> ShardChunk:
        """Create a chunk for a shard that may be known."""
        known_shard = known.get(uri)
        known_stat = None if known_shard is None else known_shard.file_stat
        if (
            known_shard is not None
            and hash_content
            and any(one.file_info.hash is None for one in known_shard.samples)
        ):
            known_stat = None
        return cls(uri, file_stat, known_stat, label_field, hash_content)

    @property
    def uris(self) -> Sequence[str]:
        """The URI of the shard."""
        return [self.uri]

    def scan(
        self, storage: Storage
    ) -> tuple[FileStat | None, list[ShardSample] | None, list[dict[str, Any]]]:
        """Read the shard; return its stat, its samples and the dumped remarks.

        The samples are None if unchanged; a shard that cannot be opened becomes one row.

        Raises:
            SourceUnavailableError: its source does not respond.
        """
        if as_text(self.uri) != self.uri:
            return None, [_unreadable(f"{CANNOT_OPEN}its name is not UTF-8; rename it")], []
        try:
            file_stat = self.file_stat or storage.stat(self.uri)
            if self.known_stat == file_stat:
                return file_stat, None, []

            def fetch(offset: int, size: int) -> bytes:
                return storage.read(self.uri, offset, size, expected=size).data

            file = RangeFile(fetch, file_stat.bytes, SHARD_BYTES)
            remarks = Remarks()
            samples = list(
                read_samples(
                    file,
                    file_stat,
                    label_field=self.label_field,
                    hash_content=self.hash_content,
                    remarks=remarks,
                )
            )
            return file_stat, samples, remarks.dump()
        except OSError as error:
            return None, [_unreadable(f"{CANNOT_OPEN}{error.strerror or error}")], []


def _unreadable(status: str) -> ShardSample:
    return ShardSample("", None, FileInfo(0, 0, Header(status=one_line(status)), was_read=True))


def _split_of(uri: str, root: str) -> str | None:
    folder, name = posixpath.split(public_uri(uri))
    if folder != root and (split := canonical_split(posixpath.basename(folder))):
        return split
    word = _FIRST_WORD.match(name)
    return canonical_split(word[0]) if word else None


def shard_name(uri: str, root: str) -> str:
    """Return the name of a shard relative to the root, without ``.tar``: the prefix of its samples' keys."""
    return public_uri(uri).removeprefix(f"{root}/").removesuffix(".tar")


def _common_folder(shards: Iterable[str]) -> str:
    folders = [posixpath.dirname(public_uri(uri)).split("/") for uri in shards]
    shared: list[str] = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join(shared)


def _unique(keys: Iterable[str]) -> list[str]:
    """Make repeated keys, which tar allows, unique with a free number: ``a``, ``a~2``."""
    given = list(keys)
    taken = set(given)
    last: dict[str, int] = {}
    result: list[str] = []
    for key in given:
        number = last.get(key, 0) + 1
        if number > 1:
            while f"{key}~{number}" in taken:
                number += 1
            taken.add(f"{key}~{number}")
        last[key] = number
        result.append(key if number == 1 else f"{key}~{number}")
    return result
