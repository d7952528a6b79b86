"""Samples of a tar shard: members grouped by key, with image headers, labels and masks."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any, NamedTuple, cast

from ...formats.headers import Header, one_line, read_header_from
from ...formats.mask_headers import mask_problem
from ...storage.local import FileStat
from ...storage.range_file import RangeFile
from ..file_info import FileInfo, content_hash
from .listing import as_text
from .remarks import Remarks
from .tar import TarMember, iter_tar

IMAGE_EXTENSIONS = frozenset(
    {
        *(
            "jpg",
            "jpeg",
            "jpe",
            "jfif",
            "png",
            "webp",
            "bmp",
            "dib",
            "tif",
            "tiff",
            "gif",
            "img",
            "image",
            "ppm",
        ),
        *("pgm", "pbm", "pnm", "avif", "jp2", "j2k", "heic", "heif", "jxl"),
    }
)
MASK_EXTENSIONS = frozenset({"seg.png", "mask.png", "seg", "mask", "segmentation.png", "label.png"})
JSON_FIELDS = (
    "class", "split", "has_mask", "boxes", "box_labels", "box_classes", "keypoints", "keypoint_names",
)  # fmt: skip
"""Fields of ``.json`` members that are read besides the label; see ``webdataset``."""
MAX_LABEL_BYTES = 1 << 20
"""Largest ``.cls`` or ``.json`` member that is read."""


@dataclass(frozen=True, slots=True)
class ShardSample:
    """One sample of a shard."""

    key: str
    label: Any
    """Text of its ``.cls`` member, or the label field of its ``.json`` member; None without either."""
    file_info: FileInfo
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Those ``JSON_FIELDS`` that its ``.json`` member has."""


class ShardContent(NamedTuple):
    """Content of one shard."""

    file_stat: FileStat
    samples: Sequence[ShardSample]
    remarks: Sequence[dict[str, Any]] = ()
    """Counts of skipped members, as returned by ``Remarks.dump``."""


@dataclass
class _Sample:
    """Image and mask members of one sample."""

    key: str
    image: TarMember
    header: Header | None = None
    digest: str | None = None
    mask: TarMember | None = None


def split_member_path(path: str) -> tuple[str, str]:
    """Split a member's path at the first dot of its name into key and lower-case extension."""
    folder, name = posixpath.split(path.removeprefix("./"))
    stem, _, extension = name.partition(".")
    return posixpath.join(folder, stem), extension.lower()


def read_samples(
    file: RangeFile, file_stat: FileStat, *, label_field: str | None, hash_content: bool, remarks: Remarks
) -> Iterator[ShardSample]:
    """Yield the samples of a shard in the order of their images, and a row with an error status if it is incomplete.

    Members with the same key form a sample, wherever they are in the shard. Of adjacent images with the same key only the
    first is used; a later image with a known key is another sample, and takes the next label of that key.

    Raises:
        OSError: the shard cannot be read.
        SourceUnavailableError: its source does not respond.
    """
    grouper = _SampleGrouper(file, file_stat, label_field, hash_content, remarks)
    problems: list[str] = []
    for member in iter_tar(file, file_stat.bytes, problems, remarks):
        grouper.add(member)
    yield from grouper.rows()
    for reason in problems:
        yield _row("", None, None, Header(status=one_line(f"broken shard: {reason}")), file_stat)


class _SampleGrouper:
    """Groups the members of a shard into samples by key."""

    def __init__(
        self,
        file: RangeFile,
        file_stat: FileStat,
        label_field: str | None,
        hash_content: bool,
        remarks: Remarks,
    ) -> None:
        self._file = file
        self._file_stat = file_stat
        self._label_field = label_field
        self._hash_content = hash_content
        self._remarks = remarks
        self._samples: list[_Sample] = []
        self._by_key: dict[str, list[_Sample]] = {}
        self._labels: dict[tuple[str, str], list[Any]] = {}
        self._masks: dict[str, list[TarMember]] = {}
        self._others: dict[str, str] = {}
        """Name of a member that is not an image, by key."""
        self._last = ""

    def add(self, member: TarMember) -> None:
        """Add a member, in the order of the shard; its label or header is read at once, while it is buffered."""
        key, extension = split_member_path(member.name)
        last, self._last = self._last, key
        if extension in MASK_EXTENSIONS:
            self._masks.setdefault(key, []).append(member)
        elif extension.rpartition(".")[2] in IMAGE_EXTENSIONS:
            if last == key and key in self._by_key:
                self._remarks.add("left_out", "further images of a sample", as_text(member.name))
                return
            sample = _Sample(key, member)
            self._read_header(sample)
            self._samples.append(sample)
            self._by_key.setdefault(key, []).append(sample)
        elif extension in ("cls", "json"):
            self._labels.setdefault((key, extension), []).append(self._label(member))
        else:
            kind = (
                f"members with the extension .{as_text(extension)[:20]}"
                if extension
                else "members without extension"
            )
            self._remarks.add("left_out", kind, as_text(member.name))
            return
        self._others.setdefault(key, member.name)

    def rows(self) -> Iterator[ShardSample]:
        """Yield the samples."""
        for key, name in self._others.items():
            if key not in self._by_key:
                self._remarks.add("left_out", "labels and masks without an image", as_text(name))
        places: dict[str, int] = {}
        for sample in self._samples:
            number = places[sample.key] = places.get(sample.key, -1) + 1
            masks = self._masks.get(sample.key, [])
            sample.mask = masks[number] if number < len(masks) else None
            text, content = (
                self._label_content(sample.key, extension, number) for extension in ("cls", "json")
            )
            fields = content if isinstance(content, dict) else {}
            label = fields.get(self._label_field) if fields and self._label_field else content
            if number:
                self._remarks.add(
                    "assumed", "images to be further samples with the same key", as_text(sample.image.name)
                )
            if fields.get("has_mask") is False:
                sample.mask = None
            fields_found = {name: fields[name] for name in JSON_FIELDS if fields.get(name) is not None}
            yield self._member(sample, label if text is None else text, fields_found)

    def _label_content(self, key: str, extension: str, number: int) -> Any:
        """Return the content of a label member of a sample; None without one."""
        found = self._labels.get((key, extension), [])
        return found[number] if number < len(found) else None

    def _member(self, sample: _Sample, label: Any, fields: Mapping[str, Any]) -> ShardSample:
        image, mask, header = sample.image, sample.mask, sample.header
        if header is None:  # a link to a later member
            self._read_header(sample)
            header = sample.header or Header(status="broken shard: it ends within this image")
        if mask is not None and header.status == "ok" and mask.problem:
            header = Header(status=one_line(f"mask {as_text(mask.name)}: {mask.problem}"))
        elif mask is not None and header.status == "ok" and mask.is_resolved:
            found = read_header_from(cast("IO[bytes]", self._file.part(mask.offset, mask.size)))
            if reason := mask_problem(found, header):
                status = one_line(f"mask does not fit: {reason} ({as_text(mask.name)})")
                header = replace(header, status=status)
        key = as_text(sample.key).replace("\0", "\\0")
        return replace(_row(key, label, image, header, self._file_stat, sample.digest, mask), fields=fields)

    def _read_header(self, sample: _Sample) -> None:
        """Read header and hash of an image, unless it is a link to a later member."""
        image = sample.image
        if image.problem:
            sample.header = Header(status=one_line(f"cannot be used: {image.problem}"))
        elif image.is_resolved:
            if image.offset + image.size > self._file_stat.bytes:
                sample.header = Header(status="broken shard: it ends within this image")
                return
            sample.header = read_header_from(cast("IO[bytes]", self._file.part(image.offset, image.size)))
            if self._hash_content:
                sample.digest = content_hash(self._file.read_at(image.offset, image.size))

    def _label(self, member: TarMember) -> Any:
        """Read a text or JSON member; an unreadable one is counted, and gives no label."""
        if not member.is_resolved or member.problem or member.size > MAX_LABEL_BYTES:
            reason = member.problem or ("links to later members" if not member.is_resolved else "too large")
            self._remarks.add("converted", f"label members to no label ({reason})", as_text(member.name))
            return None
        data = self._file.read_at(member.offset, member.size)
        try:
            text = data.decode()
            if not member.name.lower().endswith(".json"):
                return text.strip()
            return json.loads(text)
        except (
            ValueError,
            RecursionError,
        ):  # not UTF-8, not JSON, nested too deep, or numbers with too many digits
            self._remarks.add(
                "converted", "label members that cannot be read to no label", as_text(member.name)
            )
            return None


def _row(
    key: str,
    label: Any,
    image: TarMember | None,
    header: Header,
    file_stat: FileStat,
    digest: str | None = None,
    mask: TarMember | None = None,
) -> ShardSample:
    has_mask = mask is not None and mask.is_resolved and not mask.problem
    file_info = FileInfo(
        bytes=image.size if image is not None and not image.problem else 0,
        mtime_ns=file_stat.mtime_ns,
        header=header,
        was_read=True,
        etag=file_stat.etag,
        offset=image.offset if image is not None and not image.problem else 0,
        hash=digest,
        mask_offset=mask.offset if mask is not None and has_mask else None,
        mask_bytes=mask.size if mask is not None and has_mask else None,
    )
    return ShardSample(key, label, file_info)
