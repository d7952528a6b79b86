"""COCO annotations: one JSON file with images, categories, and boxes with optional keypoints.

Format: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, and https://cocodataset.org/#format-data.
Boxes are ``x, y, width, height`` in pixels. Crowd annotations and segmentations are counted in the remarks, not read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import SourceError
from .annotated_images import AnnotatedImage, listing_from_images, local_folder, split_in_name
from .labels import MAX_NAME_LENGTH
from .listing import Listing
from .remarks import Remarks

MAX_BYTES = 1 << 30
"""Largest file that is read; parsed, it takes about ten times as much memory."""


def list_coco(path: str, root: str | None, remarks: Remarks) -> Listing:
    """List the images of a COCO file.

    Args:
        path: the JSON file.
        root: base folder of ``file_name``; by default the folder of the file.
        remarks: counts what is left out.

    Raises:
        SourceError: not a COCO file, or its images are not below the root.
    """
    file = local_folder(path, "coco")
    content = _read(file)
    categories = _Categories(content["categories"], remarks)
    images = _images(content["images"], remarks)
    for annotation in content["annotations"]:
        _add_annotation(annotation, images, categories, remarks)
    split = split_in_name(re.split(r"[^A-Za-z0-9]+", file.stem))
    if split:
        remarks.add("assumed", f"split of all images, from the name {file.name!r}", split)
    for image in images.values():
        image.split = split
        if not categories.keypoint_names:
            image.keypoints = []
    return listing_from_images(
        "coco",
        str(local_folder(root, "coco") if root else file.parent),
        list(images.values()),
        box_classes=categories.names,
        keypoint_names=categories.keypoint_names,
        remarks=remarks,
    )


def is_coco(path: str) -> bool:
    """Return whether a path is a local JSON file."""
    return path.lower().endswith(".json") and "://" not in path and Path(path).is_file()


def _read(file: Path) -> dict[str, list[Any]]:
    expected = "expected a COCO file with 'images', 'annotations' and 'categories'"
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise SourceError(f"{file.name}: expected at most {MAX_BYTES:,} bytes, got {size:,}; split it")
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, SourceError):
            raise
        reason = (
            "nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
        )
        raise SourceError(f"{file.name}: {expected}, got no JSON ({reason}); check the file") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise SourceError(f"{file.name}: {expected}, got another JSON file; check the file")
    return {
        name: found if isinstance(found := content.get(name, []), list) else []
        for name in ("images", "annotations", "categories")
    }


class _Categories:
    """Maps category ids, which may have gaps, to consecutive class numbers in the order of the ids."""

    def __init__(self, raw: Sequence[Any], remarks: Remarks) -> None:
        found: dict[str, Mapping[str, Any]] = {}
        for entry in raw:
            if isinstance(entry, Mapping) and (number := _id(entry.get("id"))) is not None:
                if number in found:
                    remarks.add(
                        "left_out",
                        "categories that repeat the id of another one",
                        str(entry.get("name"))[:80],
                    )
                    continue
                found[number] = entry
            else:
                remarks.add("left_out", "categories without an id", str(entry)[:80])
        ordered = sorted(
            found, key=lambda number: (len(number), number) if number.isdigit() else (99, number)
        )
        self.numbers = {number: index for index, number in enumerate(ordered)}
        self.names = [str(found[number].get("name", number))[:MAX_NAME_LENGTH] for number in ordered]
        self.keypoint_names = self._keypoint_names(found, remarks)

    def _keypoint_names(self, found: Mapping[str, Mapping[str, Any]], remarks: Remarks) -> tuple[str, ...]:
        schemes = {
            tuple(str(name)[:MAX_NAME_LENGTH] for name in entry["keypoints"])
            for entry in found.values()
            if isinstance(entry.get("keypoints"), list) and entry["keypoints"]
        }
        if len(schemes) > 1:
            remarks.add("left_out", "keypoints: categories name different ones; index one category at a time")
        return schemes.pop() if len(schemes) == 1 else ()


def _images(raw: Sequence[Any], remarks: Remarks) -> dict[str, AnnotatedImage]:
    images: dict[str, AnnotatedImage] = {}
    for index, entry in enumerate(raw):
        number = _id(entry.get("id")) if isinstance(entry, Mapping) else None
        name = entry.get("file_name") if isinstance(entry, Mapping) else None
        if number is None or not isinstance(name, str) or not name:
            remarks.add("left_out", "images without an id or a file_name", f"number {index}")
            continue
        if number in images:
            if images[number].path != name:
                images[number].refusal = f"cannot be used: image id {number} stands for several files"
            remarks.add("merged", "images that repeat the id of another one", name)
            continue
        size = (entry.get("width"), entry.get("height"))
        stated = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in size)
        images[number] = AnnotatedImage(name, size=size if stated else None)
    return images


def _add_annotation(
    entry: Any, images: Mapping[str, AnnotatedImage], categories: _Categories, remarks: Remarks
) -> None:
    """Add an annotation to its image, or note why it is left out."""
    image = images.get(_id(entry.get("image_id")) or "") if isinstance(entry, Mapping) else None
    if image is None:
        remarks.add("left_out", "annotations of images that are not listed", str(entry)[:80])
        return
    if entry.get("iscrowd"):
        remarks.add("left_out", "crowd annotations", image.path)
        return
    number = categories.numbers.get(_id(entry.get("category_id")) or "")
    if number is None:
        remarks.add(
            "left_out", "annotations of unknown categories", f"{image.path}: {entry.get('category_id')!r:.20}"
        )
        return
    if entry.get("segmentation"):
        remarks.add("left_out", "segmentations, of which only the box is read", image.path)
    box = _numbers(entry.get("bbox"), 4)
    if box is None:
        remarks.add("left_out", "annotations without a box of four numbers", image.path)
        return
    x, y, width, height = box
    image.boxes.append([x, y, x + width, y + height])
    image.box_labels.append(number)
    image.keypoints += _keypoints(entry.get("keypoints"), len(categories.keypoint_names), image.path, remarks)


def _keypoints(raw: Any, num: int, path: str, remarks: Remarks) -> list[list[float]]:
    """Parse the keypoints of one instance; missing ones have visibility 0."""
    unlabelled = [[0.0, 0.0, 0.0] for _ in range(num)]
    if not num or not raw:
        return unlabelled
    numbers = _numbers(raw, 3 * num)
    if numbers is None or not all(map(math.isfinite, numbers)):
        remarks.add("left_out", f"keypoints of an instance that are not {num} times x, y, visibility", path)
        return unlabelled
    return [numbers[start : start + 3] for start in range(0, 3 * num, 3)]


def _numbers(raw: Any, length: int) -> list[float] | None:
    if not isinstance(raw, list) or len(raw) != length:
        return None
    try:
        return [float(number) for number in raw]
    except (TypeError, ValueError, OverflowError):
        return None


def _id(raw: Any) -> str | None:
    """Normalize an id, a number or its text, to a string; None if it is neither."""
    if isinstance(raw, bool) or not isinstance(raw, int | str | float):
        return None
    if isinstance(raw, float):
        return str(int(raw)) if raw.is_integer() else None
    return str(raw)[:100]
