"""Reads camera, software, date and orientation from an EXIF block, and the description of an ICC profile.

Pillow's parser is not used: it copies every tag of a hostile block. Blocks have the structure of a TIFF file (CIPA
DC-008-2023, section 4.6), profiles that of ICC.1:2022, section 7.
"""

from __future__ import annotations

import re
import struct
from typing import Any

MAX_ENTRIES = 512
"""Entries of a directory that are read; cameras write fewer than a hundred."""
MAX_TEXT = 100
"""Characters that are kept of a text."""
_MAKE, _MODEL, _ORIENTATION, _SOFTWARE, _DATE, _EXIF_DIRECTORY, _DATE_TAKEN = (
    271,
    272,
    274,
    305,
    306,
    34665,
    36867,
)
_ASCII, _SHORT, _LONG = 2, 3, 4
_DATE_PATTERN = re.compile(r"\d{4}:\d\d:\d\d( \d\d:\d\d:\d\d)?")
_NOT_PRINTED = re.compile(
    r"[^\S ]|[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_TAG_COUNT_AT = 128


def exif_traces(block: bytes | None) -> dict[str, Any]:
    """Read camera, software, date and orientation of an EXIF block; None for missing ones."""
    tags: dict[int, str | int] = {}
    try:
        if block and (order := {b"II": "<", b"MM": ">"}.get(block[:2])):
            (at,) = struct.unpack_from(order + "I", block, 4)
            tags = _directory(block, order, at)
            inner = tags.get(_EXIF_DIRECTORY)
            if isinstance(inner, int):
                tags = {**_directory(block, order, inner), **tags}
    except struct.error:
        pass
    orientation, make, model = tags.get(_ORIENTATION), _text(tags, _MAKE), _text(tags, _MODEL)
    if make and model and model.casefold().startswith(make.casefold()):
        make = None
    date = _text(tags, _DATE_TAKEN) or _text(tags, _DATE)
    return {
        "exif_camera": " ".join(part for part in (make, model) if part) or None,
        "exif_software": _text(tags, _SOFTWARE),
        "exif_date": date if date and _DATE_PATTERN.fullmatch(date) else None,
        "exif_orientation": orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else None,
    }


def icc_description(profile: bytes | None) -> str | None:
    """Read the description (tag ``desc``) of an ICC profile, of version 2 or 4; None if there is none."""
    try:
        if not profile:
            return None
        (count,) = struct.unpack_from(">I", profile, _TAG_COUNT_AT)
        for number in range(min(count, MAX_ENTRIES)):
            name, at, size = struct.unpack_from(">4sII", profile, _TAG_COUNT_AT + 4 + 12 * number)
            if name == b"desc":
                return _icc_text(profile[at : at + size])
    except struct.error:
        pass
    return None


def _directory(block: bytes, order: str, at: int) -> dict[int, str | int]:
    """Read the texts and whole numbers of a directory that are of interest."""
    (count,) = struct.unpack_from(order + "H", block, at)
    found: dict[int, str | int] = {}
    for number in range(min(count, MAX_ENTRIES)):
        entry = at + 2 + 12 * number
        if entry + 12 > len(block):
            break
        tag, kind, length = struct.unpack_from(order + "HHI", block, entry)
        if tag in (_MAKE, _MODEL, _SOFTWARE, _DATE, _DATE_TAKEN) and kind == _ASCII:
            start = entry + 8 if length <= 4 else struct.unpack_from(order + "I", block, entry + 8)[0]
            found.setdefault(tag, _clean(block[start : start + min(length, 4 * MAX_TEXT)].split(b"\0", 1)[0]))
        elif (tag, kind, length) in ((_ORIENTATION, _SHORT, 1), (_EXIF_DIRECTORY, _LONG, 1)):
            found.setdefault(
                tag, struct.unpack_from(order + ("H" if kind == _SHORT else "I"), block, entry + 8)[0]
            )
    return found


def _text(tags: dict[int, str | int], tag: int) -> str | None:
    value = tags.get(tag)
    return value if isinstance(value, str) and value else None


def _clean(text: bytes | str) -> str:
    """Return a text in one line of printable characters."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return " ".join(_NOT_PRINTED.sub(" ", text).split())[:MAX_TEXT].strip()


def _icc_text(tag: bytes) -> str | None:
    """Read a tag of type ``desc`` (version 2) or ``mluc`` (version 4, its first language)."""
    if tag[:4] == b"desc":
        (length,) = struct.unpack_from(">I", tag, 8)
        return _clean(tag[12 : 12 + min(length, 4 * MAX_TEXT)].split(b"\0", 1)[0]) or None
    if tag[:4] == b"mluc":
        length, at = struct.unpack_from(">II", tag, 20)
        return (
            _clean(tag[at : at + min(length, 4 * MAX_TEXT)].decode("utf-16-be", "replace").split("\0", 1)[0])
            or None
        )
    return None
