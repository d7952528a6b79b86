"""WebDataset shards: plain tar files whose members are samples, read once and then at random by byte ranges.

A member's key is its path up to the first dot of its name; members with one key are a sample, wherever they lie::

    train-000.tar   a/01.jpg  a/01.cls  a/01.seg.png      an image, its class, its mask
                    a/02.png  a/02.json                   the class is a field of the JSON

Besides the label these fields of ``.json`` are read, as ``lightwell materialize`` writes them: ``class`` (the name of a class
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
from ...uris import public_uri
from ..headers import CANNOT_OPEN, Header, one_line
from ..readers import Readers
from ..seen import Seen
from ..splits import canonical_split, split_names
from .labels import LabelKind, Labels, read_labels
from .listing import Listing, as_text
from .members import Member, read_members
from .member_fields import describe_annotations
from .ranged import SHARD_BYTES, RangedFile
from .remarks import Remarks
from .storage import Storage
from .store import Found, is_remote

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_FIRST_WORD = re.compile(r"[A-Za-z]+")
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class ShardContent:
    """What was read of one shard."""

    found: Found | None
    """Its identity; None where it cannot be opened."""
    members: Sequence[Member]
    remarks: Sequence[Mapping[str, Any]] = ()
    """As ``Remarks.dump`` writes them."""

    def is_whole(self) -> bool:
        """Say whether what was read changes only with the shard."""
        return self.found is not None and not any(
            one.seen.header.status.startswith(CANNOT_OPEN) for one in self.members
        )


Known = Mapping[str, ShardContent]
"""Whole shards of an older index, or of an interrupted run."""


def names_shards(source: str) -> bool:
    """Say whether a source is a tar file, or a pattern of them."""
    return source.endswith(".tar")


def expand_braces(pattern: str) -> list[str]:
    """Write out ``{000..002}`` and ``{a,b}``, as a shell does; a range keeps its leading zeros."""
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


def find_shards(source: str, storage: Storage) -> dict[str, Found | None]:
    """Find the shards that a path, a URI, a glob or a brace list names, in order.

    Raises:
        SourceError: a glob finds none.
    """
    shards: dict[str, Found | None] = {}
    for pattern in expand_braces(source):
        if not _WILD.search(posixpath.basename(pattern) if is_remote(pattern) else pattern):
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
        raise SourceError(f"wanted tar shards, got none that match {source!r}; check the pattern")
    return shards


def list_shards(
    shards: Mapping[str, Found | None],
    storage: Storage,
    *,
    label_field: str | None,
    known: Known,
    hash_content: bool,
    readers: Readers,
    note: Callable[[int, str, ShardContent], None],
    label_kind: LabelKind = "auto",
    label_separator: str | None = None,
) -> Listing:
    """Read the members of shards, in parallel by shard; one that is known and unchanged is not opened.

    Labels are the ``.cls`` members, or where there are none the field ``label_field`` of the ``.json`` members. Splits are a
    field of these too, or the shards' folders, or the first words of their names (train, val, test and their usual spellings)
    where each shard has one. Of a shard that breaks off, the samples before the break are kept, and the break is a row.

    Raises:
        SourceError: no shard is there, or the labels make no sense.
        SourceDownError: their source gives no answer.
    """
    root = _common_folder(shards)
    portions = [
        ShardPortion.of(uri, found, known, hash_content=hash_content, label_field=label_field)
        for uri, found in shards.items()
    ]
    done: dict[str, ShardContent] = {}
    with closing(readers.look(portions, num_portions=len(portions), storage=storage)) as results:
        for uri, content in zip(shards, results, strict=True):
            done[uri] = known[uri] if content is None else content
            note(len(done), uri, done[uri])
    if all(content.found is None for content in done.values()):
        first, content = next(iter(done.items()))
        raise SourceError(
            f"expected tar shards, got none that can be opened ({public_uri(first)}: {content.members[0].seen.header.status}); "
            "check the paths"
        )
    return _Shards(root, done).listing(label_field, label_kind, label_separator)


class _Shards:
    """The samples of all shards, as a listing describes them."""

    def __init__(self, root: str, done: Mapping[str, ShardContent]) -> None:
        self._root = root
        self._done = done
        self._remarks = Remarks()
        for content in done.values():
            self._remarks.update(content.remarks)
        self._uris = [uri for uri, content in done.items() for _ in content.members]
        self._members = [member for content in done.values() for member in content.members]

    def listing(self, label_field: str | None, kind: LabelKind, separator: str | None) -> Listing:
        """Make the listing.

        Raises:
            SourceError: the labels make no sense.
        """
        members, uris = self._members, self._uris
        labels = self._labels(label_field, kind, separator)
        described = describe_annotations([member.fields for member in members], self._remarks)
        masks = [
            uri if member.seen.mask_offset is not None else None
            for uri, member in zip(uris, members, strict=True)
        ]
        return Listing(
            kind="shards",
            root=self._root,
            keys=_unique(
                f"{shard_name(public_uri(uri), self._root)}/{member.key}".rstrip("/")
                for uri, member in zip(uris, members, strict=True)
            ),
            uris=uris,
            labels=labels.numbers,
            classes=labels.classes,
            label_sets=labels.sets,
            splits=self._splits(),
            masks=masks if any(masks) else None,
            boxes=described.boxes,
            box_labels=described.box_labels,
            box_classes=described.box_classes,
            keypoints=described.keypoints,
            keypoint_names=described.keypoint_names,
            seen=[member.seen for member in members],
            shards={uri: one for uri, one in self._done.items() if _can_be_kept(one)},
            remarks=self._remarks,
            notes={"num_shards": len(self._done), "label_field": label_field},
        )

    def _labels(self, label_field: str | None, kind: LabelKind, separator: str | None) -> Labels:
        if label_field is None:
            return Labels([-1] * len(self._members), ())
        names = [member.fields.get("class") for member in self._members]
        cells = [
            name if member.label is None else member.label
            for member, name in zip(self._members, names, strict=True)
        ]
        return read_labels(
            cells,
            names if any(names) else None,
            label_field,
            remarks=self._remarks,
            kind=kind,
            separator=separator,
        )

    def _splits(self) -> list[str | None] | None:
        by_shard = {uri: _split_of(public_uri(uri), self._root) for uri in self._done}
        written = [member.fields.get("split") for member in self._members]
        given = [one if isinstance(one, str) and one.strip() else None for one in written]
        if any(given):
            names = split_names([one for one in given if one], self._remarks)
            splits = [
                names[one] if one else by_shard[uri] for one, uri in zip(given, self._uris, strict=True)
            ]
            self._remarks.add(
                "left_out", "samples without a split, which are in none", count=splits.count(None)
            )
            return splits
        named = [uri for uri, split in by_shard.items() if split]
        if named and len(named) < len(by_shard):
            other = next(uri for uri, split in by_shard.items() if not split)
            self._remarks.add(
                "assumed",
                "splits by a hash, since not all shards name one",
                posixpath.basename(public_uri(other)),
                count=len(by_shard) - len(named),
            )
        return [by_shard[uri] for uri in self._uris] if len(named) == len(by_shard) else None


def _can_be_kept(content: ShardContent) -> bool:
    """Say whether an index holds all that was read of a shard, so that it need not be read again."""
    return content.is_whole() and not any(member.fields for member in content.members)


@dataclass(frozen=True)
class ShardPortion:
    """One shard to read, unless it is as it was."""

    uri: str
    found: Found | None
    """What a listing said of it."""
    before: Found | None
    """What it was when all that is needed of it was read."""
    hash_content: bool
    label_field: str | None

    @classmethod
    def of(
        cls, uri: str, found: Found | None, known: Known, *, hash_content: bool, label_field: str | None
    ) -> ShardPortion:
        """Prepare to read a shard of which something may be known."""
        content = known.get(uri)
        before = None if content is None else content.found
        if content is not None and hash_content and any(one.seen.hash is None for one in content.members):
            before = None
        return cls(uri, found, before, hash_content, label_field)

    @property
    def uris(self) -> Sequence[str]:
        """The shard."""
        return [self.uri]

    def look(self, storage: Storage) -> ShardContent | None:
        """Read the shard; None where it is as before. One that cannot be opened becomes one row.

        Raises:
            SourceDownError: its source gives no answer.
        """
        if as_text(self.uri) != self.uri:
            return _lost("its name is not UTF-8; rename it")
        try:
            found = self.found or storage.look(self.uri)
            if self.before == found:
                return None

            def fetch(offset: int, size: int) -> bytes:
                return storage.read(self.uri, offset, size, expected=size).data

            remarks = Remarks()
            file = RangedFile(fetch, found.bytes, SHARD_BYTES)
            members = list(
                read_members(
                    file, found, remarks, hash_content=self.hash_content, label_field=self.label_field
                )
            )
            return ShardContent(found, members, remarks.dump())
        except OSError as error:
            return _lost(str(error.strerror or error))


def _lost(reason: str) -> ShardContent:
    header = Header(status=one_line(f"{CANNOT_OPEN}{reason}"))
    return ShardContent(None, [Member("", None, Seen(0, 0, header, was_read=True))])


def _split_of(uri: str, root: str) -> str | None:
    folder, name = posixpath.split(uri)
    if folder != root and (split := canonical_split(posixpath.basename(folder))):
        return split
    word = _FIRST_WORD.match(name)
    return canonical_split(word[0]) if word else None


def shard_name(uri: str, root: str) -> str:
    """Name a shard from its root, without ``.tar``: the beginning of its samples' keys."""
    return uri.removeprefix(f"{root}/").removesuffix(".tar")


def _common_folder(shards: Iterable[str]) -> str:
    folders = [posixpath.dirname(uri).split("/") for uri in shards]
    shared: list[str] = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join(shared)


def _unique(keys: Iterable[str]) -> list[str]:
    """Give samples with one key, which shards may have, keys of their own that no other sample has."""
    written = list(keys)
    numbers = dict.fromkeys(written, 1)
    taken: set[str] = set()
    unique = []
    for key in written:
        name = key
        while name in taken or (name != key and name in numbers):
            numbers[key] += 1
            name = f"{key}~{numbers[key]}"
        taken.add(name)
        unique.append(name)
    return unique
