"""Images as an annotation file describes them, on their way to a listing; what the three formats share."""

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
NUM_ROOT_CHECKS = 20
"""Images that are looked for to tell a wrong root from a few missing files."""


@dataclass
class AnnotatedImage:
    """One image and its annotations."""

    path: str
    """Relative to the root, as the format writes it."""
    boxes: Boxes = field(default_factory=list)
    box_labels: list[int] = field(default_factory=list)
    keypoints: Keypoints = field(default_factory=list)
    size: tuple[int, int] | None = None
    """Width and height, where the format states them."""
    split: str | None = None
    refusal: str | None = None
    """Why the image cannot be used."""


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
    """Make the listing of described images; boxes are read, labels of whole images are not.

    A path that is absolute or leads out of the root is refused: an annotation file of a stranger names no other files.

    Raises:
        SourceError: there is no image, or none of the first ones lies below the root.
    """
    if not images:
        raise SourceError(f"expected images in {kind} annotations, got none; check the file")
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
    """Find key and place of an image, and why its path is refused."""
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
    """Say whether a file can have this name."""
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
    """Find the split that the words of a file's name state, such as ``instances_train2017``; None for none or several."""
    found = {canonical_split(word.rstrip("0123456789")) for word in words} - {None}
    return found.pop() if len(found) == 1 else None


def local_folder(path: str, kind: str) -> Path:
    """Return the absolute path of a source that has to be on a local disk.

    Raises:
        SourceError: it is a URI.
    """
    if "://" in path:
        raise SourceError(
            f"{kind} annotations: expected files on a local disk, got a URI; copy them here first"
        )
    return Path(os.path.abspath(path))  # noqa: PTH100 - links stay
