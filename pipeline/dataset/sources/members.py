"""What one tar shard holds: its members, grouped into samples whatever their order, with the headers of their images."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, cast

from ..headers import Header, header_of, one_line
from ..seen import Seen, content_hash
from .listing import as_text
from .ranged import RangedFile
from .remarks import Remarks
from .store import Found
from .tar import Archive, TarMember, read_archives

IMAGES = frozenset(
    "jpg jpeg jpe jfif png webp bmp dib tif tiff gif ppm pgm pbm pnm jp2 j2k avif img image".split()
)
MASKS = frozenset({"seg.png", "mask.png", "seg", "mask", "segmentation.png", "label.png"})
TEXTS = frozenset({"txt", "caption", "text", "captions"})
"""Members that describe a sample and are not read."""
FIELDS = ("class", "split", "has_mask", "boxes", "box_labels", "box_classes", "keypoints", "keypoint_names")
"""Fields of ``.json`` that are read besides the label; see ``shards``."""
MAX_LABEL_BYTES = 1 << 20
"""A ``.cls`` or ``.json`` member that is larger holds no label."""
UNREADABLE = "labels that cannot be read"


@dataclass(frozen=True, slots=True)
class Member:
    """One sample of a shard."""

    key: str
    label: Any
    """Text of its ``.cls`` member, else the label field of its ``.json`` member; None without either."""
    seen: Seen
    fields: Mapping[str, Any] = field(default_factory=dict)
    """``FIELDS`` of its ``.json`` member."""


@dataclass
class _Parts:
    """The members of one sample by what they are for."""

    image: TarMember | None = None
    mask: TarMember | None = None
    cls: TarMember | None = None
    json: TarMember | None = None


def split_name(path: str) -> tuple[str, str]:
    """Split a member's path at the first dot of its name into key and lower-case extension."""
    folder, name = posixpath.split(path.removeprefix("./"))
    stem, _, extension = name.partition(".")
    return posixpath.join(folder, stem), extension.lower()


def read_members(
    file: RangedFile, found: Found, remarks: Remarks, *, hash_content: bool, label_field: str | None
) -> Iterator[Member]:
    """Yield the samples of a shard that have an image, in the order of their first members, and a row where it breaks off.

    Args:
        file: the shard.
        found: its identity.
        remarks: counts members that belong to no sample.
        hash_content: read the images whole, and hash them.
        label_field: field of ``.json`` members that holds the label.

    Raises:
        OSError: it cannot be read at all.
        SourceDownError: its source gives no answer.
    """
    broken: list[str] = []
    for number, archive in enumerate(read_archives(file, broken)):
        if number:
            remarks.add("assumed", "archives joined in one file, which are all read")
        remarks.add(
            "merged", "members that a later one of the same name replaces", count=archive.num_replaced
        )
        for name, what in archive.others.items():
            remarks.add("left_out", f"members that are {what}", as_text(name))
        for key, parts in _grouped(archive, remarks).items():
            if parts.image is not None:
                yield _sample(
                    as_text(key), parts, parts.image, file, found, remarks, hash_content, label_field
                )
    for reason in broken:
        yield _row("", None, 0, 0, Header(status=one_line(f"broken shard: {reason}")), found)


def _grouped(archive: Archive, remarks: Remarks) -> dict[str, _Parts]:
    """Group the members of an archive by key, neighbours or not; what belongs to no sample is counted."""
    samples: dict[str, _Parts] = {}
    for member in archive.members.values():
        if posixpath.basename(member.name).startswith("."):
            remarks.add("left_out", "hidden members", as_text(member.name))
            continue
        key, extension = split_name(member.name)
        _take(samples.setdefault(key, _Parts()), member, extension, remarks)
    for key, parts in samples.items():
        if parts.image is None and (parts.mask or parts.cls or parts.json):
            remarks.add("left_out", "labels and masks without an image", as_text(key))
    return samples


def _take(parts: _Parts, member: TarMember, extension: str, remarks: Remarks) -> None:
    if extension in MASKS:
        parts.mask = parts.mask or member
    elif extension.rpartition(".")[2] in IMAGES:
        if parts.image is not None:
            remarks.add("left_out", "further images of a sample, which has its first", as_text(member.name))
        parts.image = parts.image or member
    elif extension == "cls":
        parts.cls = member
    elif extension == "json":
        parts.json = member
    elif extension in TEXTS:
        remarks.add("left_out", "texts and captions, which are not read", as_text(member.name))
    else:
        ending = extension.rpartition(".")[2][:20]
        remarks.add(
            "left_out",
            f"members that end in .{ending}" if ending else "members without an ending",
            as_text(member.name),
        )


def _sample(
    key: str,
    parts: _Parts,
    image: TarMember,
    file: RangedFile,
    found: Found,
    remarks: Remarks,
    hash_content: bool,
    label_field: str | None,
) -> Member:
    if image.problem:
        header = Header(status=one_line(f"cannot be used: {image.problem}"))
        return _row(key, None, image.offset, image.size, header, found)
    if image.offset + image.size > found.bytes:
        header = Header(status="broken shard: it ends within this image")
        return _row(key, None, image.offset, image.size, header, found)
    header = header_of(cast("IO[bytes]", file.part(image.offset, image.size)))
    digest = content_hash(file.read_at(image.offset, image.size)) if hash_content else None
    content = _read_json(parts.json, file, key, remarks)
    label = _read_text(parts.cls, file, key, remarks)
    if label is None and label_field is not None:
        label = content.get(label_field)
    elif label_field is None:
        label = None
    fields = {name: content[name] for name in FIELDS if content.get(name) is not None}
    mask = None if content.get("has_mask") is False else parts.mask
    if mask is not None and (mask.problem or mask.offset + mask.size > found.bytes):
        reason = mask.problem or "the shard ends within it"
        header = Header(status=one_line(f"cannot be used: its mask is {reason}"))
    return _row(key, label, image.offset, image.size, header, found, digest, mask, fields)


def _row(
    key: str,
    label: Any,
    offset: int,
    size: int,
    header: Header,
    found: Found,
    digest: str | None = None,
    mask: TarMember | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Member:
    seen = Seen(
        bytes=size,
        mtime_ns=found.mtime_ns,
        header=header,
        was_read=True,
        etag=found.etag,
        offset=offset,
        hash=digest,
        mask_offset=None if mask is None else mask.offset,
        mask_bytes=None if mask is None else mask.size,
    )
    return Member(key, label, seen, fields or {})


def _read_text(member: TarMember | None, file: RangedFile, key: str, remarks: Remarks) -> str | None:
    """Read a small text; one that is too large, broken or no UTF-8 is counted and costs its sample the label."""
    if member is None:
        return None
    if not member.problem and member.size <= MAX_LABEL_BYTES and member.offset + member.size <= file.size:
        try:
            return file.read_at(member.offset, member.size).decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            pass
    remarks.add("unlabelled", UNREADABLE, f"{key}.{split_name(member.name)[1]}")
    return None


def _read_json(member: TarMember | None, file: RangedFile, key: str, remarks: Remarks) -> Mapping[str, Any]:
    text = _read_text(member, file, key, remarks)
    if text is None:
        return {}
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        remarks.add("unlabelled", UNREADABLE, f"{key}.json")
        return {}
    return content if isinstance(content, dict) else {}
