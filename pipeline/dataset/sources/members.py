"""What one tar shard holds: its members, grouped into samples, with the headers of their images."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import IO, Any, cast

from ...errors import RunError
from ..headers import Header, header_of, one_line
from ..seen import Seen, content_hash
from .listing import as_text
from .ranged import RangedFile
from .store import Found

IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "img", "image"})
MASKS = frozenset({"seg.png", "mask.png", "seg", "mask", "segmentation.png", "label.png"})
MAX_LABEL_BYTES = 1 << 20
"""A ``.cls`` or ``.json`` member that is larger holds no label."""
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Member:
    """One sample of a shard."""

    key: str
    label: Any
    """Text of its ``.cls`` member, or what its ``.json`` member holds; None without either."""
    seen: Seen

    def label_of(self, name: str) -> Any:
        """Return the label, out of its field where there are several."""
        return self.label.get(name) if isinstance(self.label, dict) else self.label


@dataclass
class _Parts:
    """The members of one sample by what they are for."""

    image: tarfile.TarInfo | None = None
    mask: tarfile.TarInfo | None = None
    label: tarfile.TarInfo | None = None
    others: list[str] = field(default_factory=list)

    def take(self, info: tarfile.TarInfo, extension: str) -> None:
        if extension in MASKS:
            self.mask = self.mask or info
        elif extension.rpartition(".")[2] in IMAGES:
            self.image = self.image or info
        elif extension == "cls" or (extension == "json" and self.label is None):
            self.label = info
        else:
            self.others.append(extension)


def split_name(path: str) -> tuple[str, str]:
    """Split a member's path at the first dot of its name into key and lower-case extension."""
    folder, name = posixpath.split(path.removeprefix("./"))
    stem, _, extension = name.partition(".")
    return posixpath.join(folder, stem), extension.lower()


def read_members(file: RangedFile, found: Found, *, hash_content: bool) -> Iterator[Member]:
    """Yield the samples of a shard that have an image, and where it breaks off a row that says so.

    Raises:
        OSError: it cannot be read at all.
        SourceDownError: its source gives no answer.
    """
    broken: list[str] = []
    files = (info for info in _infos(file, found, broken) if not _is_hidden(info))
    for key, infos in groupby(files, key=lambda info: split_name(info.name)[0]):
        parts = _Parts()
        for info in infos:
            parts.take(info, split_name(info.name)[1])
        if parts.image is not None:
            yield _sample(as_text(key), parts, parts.image, file, found, hash_content=hash_content)
    for reason in broken:
        yield _row("", None, 0, 0, Header(status=one_line(f"broken shard: {reason}")), found)


def _infos(file: RangedFile, found: Found, broken: list[str]) -> Iterator[tarfile.TarInfo]:
    """Yield the regular members in order; notes it where the tar is not whole."""
    file.seek(0)
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", file), mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                if info.isreg():
                    yield info
            # tarfile takes a damaged header behind the first for the end, without a word.
            end = file.read_at(tar.offset, _BLOCK)
            if any(end):
                broken.append(f"no member begins at byte {tar.offset:,}; what follows is lost")
            elif len(end) < _BLOCK:
                broken.append(f"it ends without an end mark at byte {tar.offset:,}; members may be missing")
    except (tarfile.TarError, EOFError) as error:
        compressed = file.read_at(0, 2) in (b"\x1f\x8b", b"BZ")
        cure = "; unpack it: only plain tar can be read at random" if compressed else ""
        broken.append(f"{' '.join(str(error).split())}{cure} ({found.bytes:,} bytes)")


def _is_hidden(info: tarfile.TarInfo) -> bool:
    return posixpath.basename(info.name).startswith(".")


def _sample(
    key: str, parts: _Parts, image: tarfile.TarInfo, file: RangedFile, found: Found, *, hash_content: bool
) -> Member:
    if image.offset_data + image.size > found.bytes:
        header = Header(status="broken shard: it ends within this image")
        return _row(key, None, image.offset_data, image.size, header, found)
    header = header_of(cast("IO[bytes]", file.part(image.offset_data, image.size)))
    digest = content_hash(file.read_at(image.offset_data, image.size)) if hash_content else None
    return _row(
        key, _label(parts.label, file), image.offset_data, image.size, header, found, digest, parts.mask
    )


def _row(
    key: str,
    label: Any,
    offset: int,
    size: int,
    header: Header,
    found: Found,
    digest: str | None = None,
    mask: tarfile.TarInfo | None = None,
) -> Member:
    mask_place = (None, None) if mask is None else (mask.offset_data, mask.size)
    seen = Seen(
        bytes=size,
        mtime_ns=found.mtime_ns,
        header=header,
        was_read=True,
        etag=found.etag,
        offset=offset,
        hash=digest,
        mask_offset=mask_place[0],
        mask_bytes=mask_place[1],
    )
    return Member(key, label, seen)


def _label(info: tarfile.TarInfo | None, file: RangedFile) -> Any:
    if info is None or info.size > MAX_LABEL_BYTES:
        return None
    data = file.read_at(info.offset_data, info.size)
    try:
        text = data.decode()
        return json.loads(text) if info.name.lower().endswith(".json") else text.strip()
    except RunError:
        raise
    except ValueError:  # not UTF-8, or no JSON: an image without a label
        return None
