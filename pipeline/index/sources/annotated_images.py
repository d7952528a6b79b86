"""Images with annotations, and their conversion to a listing; shared by COCO, YOLO and Pascal VOC."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...errors import SourceError
from ..splits import canonical_split
from .listing import Boxes, Keypoints, Listing, as_text
from .remarks import Remarks

AnnotationKind = Literal["coco", "yolo", "voc"]
FORMAT_NAMES: dict[AnnotationKind, str] = {"coco": "COCO", "yolo": "YOLO", "voc": "Pascal VOC"}
NUM_ROOT_CHECKS = 20
"""Images whose existence is checked to tell a wrong root from a few missing files."""


@dataclass
class AnnotatedImage:
    """One image and its annotations."""

    path: str
    """Relative to the root, in the spelling of the format."""
    boxes: Boxes = field(default_factory=list)
    box_labels: list[int] = field(default_factory=list)
    keypoints: Keypoints = field(default_factory=list)
    size: tuple[int, int] | None = None
    """Width and height, if the format states them."""
    split: str | None = None
    refusal: str | None = None
    """Error status of an image that cannot be used."""


def listing_from_images(
    kind: AnnotationKind,
    root: str,
    images: Sequence[AnnotatedImage],
    *,
    box_classes: Sequence[str],
    keypoint_names: Sequence[str] = (),
    box_unit: Literal["pixel", "fraction"] = "pixel",
    remarks: Remarks,
) -> Listing:
    """Convert annotated images to a listing with boxes and keypoints, without image labels.

    Paths that are absolute or lead out of the root are refused, as annotation files may be untrusted.

    Raises:
        SourceError: there are no images, or none of the first ones exists below the root.
    """
    if not images:
        raise SourceError(f"expected images in {FORMAT_NAMES[kind]} annotations, got none; check the source")
    keys, uris, refused = [], [], {}
    num_by_key: dict[str, int] = {}
    for index, image in enumerate(images):
        key, uri, reason = _locate(root, image.path)
        num_by_key[key] = num_by_key.get(key, 0) + 1
        if num_by_key[key] > 1:
            key = f"{key}~{num_by_key[key]}"
            reason = reason or "cannot be used: described more than once"
        if refusal := image.refusal or reason:
            refused[index] = refusal
        keys.append(key)
        uris.append(uri)
    _check_root(kind, root, uris)
    splits = [image.split for image in images]
    if any(splits):
        remarks.add("left_out", "samples without a split, which are in none", count=splits.count(None))
    return Listing(
        kind=kind,
        root=root,
        keys=keys,
        uris=uris,
        labels=[-1] * len(images),
        classes=(),
        splits=splits if any(splits) else None,
        boxes=[image.boxes for image in images],
        box_labels=[image.box_labels for image in images],
        keypoints=[image.keypoints for image in images] if keypoint_names else None,
        box_classes=tuple(box_classes),
        keypoint_names=tuple(keypoint_names),
        box_unit=box_unit,
        declared_sizes=[image.size for image in images],
        remarks=remarks,
        refused=refused,
        notes={"annotations": kind},
    )


def _locate(root: str, path: str) -> tuple[str, str, str | None]:
    """Return key and path of an image, and the error status of an invalid path."""
    name = as_text(path).replace("\0", "")
    normalized = posixpath.normpath(path.replace("\\", "/"))
    if (
        not _is_valid_path(path)
        or not path.strip()
        or normalized.startswith(("/", "../"))
        or normalized in (".", "..")
    ):
        return name or "(no path)", name, "cannot be used: expected a path below the root of the annotations"
    if "://" in path:
        return name, name, "cannot be used: expected a path below the root of the annotations, got a URI"
    return as_text(normalized), f"{root}/{normalized}", None


def _is_valid_path(path: str) -> bool:
    """Return whether a file can have this name."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _check_root(kind: str, root: str, uris: Sequence[str]) -> None:
    checked = [uri for uri in uris[:NUM_ROOT_CHECKS] if uri.startswith(root)]
    if checked and "://" not in root and not any(map(os.path.exists, checked)):
        raise SourceError(
            f"{kind} annotations: expected images below {root!r}, got none of the first {len(checked)}, such as "
            f"{checked[0]!r}; name their folder with --root"
        )


def split_in_name(words: Iterable[str]) -> str | None:
    """Return the split in the words of a file name such as ``instances_train2017``; None for none or several."""
    found = {canonical_split(word.rstrip("0123456789")) for word in words} - {None}
    return found.pop() if len(found) == 1 else None


def local_folder(path: str, kind: str) -> Path:
    """Return the absolute path of a source that must be local.

    Raises:
        SourceError: the source is a URI.
    """
    if "://" in path:
        raise SourceError(
            f"{kind} annotations: expected files on a local disk, got a URI; copy them here first"
        )
    return Path(os.path.abspath(path))  # noqa: PTH100 - keeps links
