"""YOLO annotations: one text file per image, with lines ``class cx cy width height`` as fractions of the image size.

A dataset is a ``data.yaml`` (``path``, ``train``, ``val``, ``test``, ``names``) or a folder with ``images`` and ``labels``.
Labels of ``a/images/b/1.jpg`` are ``a/labels/b/1.txt``. Lines with more numbers are polygons, of which the bounding box is
used, or, with ``kpt_shape``, a box and keypoints. An image without a text file, or with an empty one, has no objects.
Format: https://docs.ultralytics.com/datasets/detect/. The fractions refer to the upright image.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config.safe_yaml import parse_document, read_text_file
from ...errors import PlanError, SourceError
from ..splits import canonical_split
from .annotated_images import AnnotatedImage, listing_from_images, local_folder
from .labels import MAX_NAME_LENGTH, PLAUSIBLE_CLASSES
from .listing import Listing
from .remarks import Remarks
from .voc import IMAGE_SUFFIXES

MAX_LABEL_BYTES = 16 << 20
"""Largest text file."""
SPLITS = ("train", "val", "valid", "test")


@dataclass(frozen=True)
class _YoloDataset:
    """Content of a ``data.yaml``, or layout of a folder."""

    root: Path
    splits: Mapping[str | None, Sequence[str]]
    """Folders or lists of images, relative to the root, by split."""
    names: Mapping[int, str]
    num_keypoints: int = 0
    keypoint_width: int = 0
    """2 for x and y, 3 with visibility."""

    @property
    def num_classes(self) -> int:
        """Largest number of classes: numbers without a name count up to a bound, since all smaller ones get a name."""
        return max(PLAUSIBLE_CLASSES, max(self.names, default=-1) + 1)


def is_yolo(source: str) -> bool:
    """Return whether a source is a ``.yaml`` file, or a folder with ``images`` and text files below ``labels``."""
    if "://" in source:
        return False
    if source.lower().endswith((".yaml", ".yml")):
        return Path(source).is_file()
    folder = Path(source)
    if not all((folder / name).is_dir() for name in ("images", "labels")):
        return False
    return next((folder / "labels").rglob("*.txt"), None) is not None


def list_yolo(source: str, root: str | None, remarks: Remarks) -> Listing:
    """List the images of a YOLO dataset.

    Args:
        source: ``data.yaml``, or a folder.
        root: replaces ``path`` of the YAML file, which must not lead out of the file's folder.
        remarks: counts what is left out.

    Raises:
        SourceError: the dataset cannot be read.
    """
    path = local_folder(source, "yolo")
    if path.is_dir():
        yaml_file = next(
            (path / name for name in ("data.yaml", "dataset.yaml") if (path / name).is_file()), None
        )
        dataset = _read_folder_layout(path) if yaml_file is None else _read_yaml(yaml_file, root)
    else:
        dataset = _read_yaml(path, root)
    images: dict[str, AnnotatedImage] = {}
    for split, paths in dataset.splits.items():
        for entry in paths:
            for name in _images(dataset.root, entry, remarks):
                if name in images:
                    remarks.add("merged", "images that are listed twice, which stay in the first split", name)
                    continue
                images[name] = AnnotatedImage(name, split=split)
    used_classes: set[int] = set()
    for image in images.values():
        _annotate(image, dataset, used_classes, remarks)
    last = max([*dataset.names, *used_classes], default=-1)
    unnamed = sorted(used_classes - dataset.names.keys())
    if unnamed:
        remarks.add(
            "assumed", "classes without a name, named by their number", str(unnamed[0]), count=len(unnamed)
        )
    return listing_from_images(
        "yolo",
        str(dataset.root),
        list(images.values()),
        box_classes=[dataset.names.get(number, str(number)) for number in range(last + 1)],
        keypoint_names=[str(number) for number in range(dataset.num_keypoints)],
        box_unit="fraction",
        remarks=remarks,
    )


def _read_folder_layout(folder: Path) -> _YoloDataset:
    subfolders = sorted(one.name for one in (folder / "images").iterdir() if one.is_dir())
    splits: dict[str | None, list[str]] = {}
    for name in subfolders:
        splits.setdefault(canonical_split(name), []).append(f"images/{name}")
    if None in splits or not splits:
        return _YoloDataset(folder, {None: ["images"]}, _names_file(folder))
    return _YoloDataset(folder, splits, _names_file(folder))


def _names_file(folder: Path) -> dict[int, str]:
    """Read class names, one per line, from the ``classes.txt`` of annotation tools."""
    for file in (folder / "classes.txt", folder / "labels" / "classes.txt"):
        if file.is_file():
            lines = read_text_file(file).splitlines()
            return {
                number: line.strip()[:MAX_NAME_LENGTH] for number, line in enumerate(lines) if line.strip()
            }
    return {}


def _read_yaml(file: Path, root: str | None) -> _YoloDataset:
    expected = f"{file.name}: expected a YOLO dataset with 'train' or 'val' and 'names'"
    try:
        content = parse_document(read_text_file(file), file.name, keys_as_text=True)
    except PlanError as error:
        raise SourceError(f"{expected}, got something else ({error})") from error
    if not isinstance(content, dict) or not any(name in content for name in SPLITS):
        raise SourceError(f"{expected}, got other keys; check the file")
    folder = _folder(file, content.get("path"), root)
    splits: dict[str | None, list[str]] = {}
    for name in SPLITS:
        raw = content.get(name)
        paths = [raw] if isinstance(raw, str) else raw if isinstance(raw, list) else []
        for entry in paths:
            if not isinstance(entry, str) or not _stays_below(entry):
                raise SourceError(
                    f"{file.name}: {name}: expected a folder below {str(folder)!r}, got {str(entry)[:80]!r}; name the folder "
                    "of the images with --root"
                )
            splits.setdefault(canonical_split(name), []).append(entry)
    num_keypoints, width = _keypoint_shape(content.get("kpt_shape"), file)
    return _YoloDataset(folder, splits, _names(content.get("names"), file), num_keypoints, width)


def _folder(file: Path, raw: Any, root: str | None) -> Path:
    """Return the base folder of the paths in a YAML file: ``path``, if it exists below the file's folder, else that folder."""
    if root is not None:
        return local_folder(root, "yolo")
    if not isinstance(raw, str) or not raw:
        return file.parent
    if not _stays_below(raw):
        if not (file.parent / raw).is_dir() or Path(raw).is_absolute():
            return file.parent
        raise SourceError(
            f"{file.name}: path: expected a folder below that of the file, got {raw!r}; name it with --root"
        )
    return file.parent / raw if (file.parent / raw).is_dir() else file.parent


def _stays_below(entry: str) -> bool:
    """Return whether a relative path stays below its base folder."""
    normalized = os.path.normpath(entry)
    return (
        "\0" not in entry
        and not Path(entry).is_absolute()
        and not normalized.startswith("..")
        and "://" not in entry
    )


def _names(raw: Any, file: Path) -> dict[int, str]:
    if isinstance(raw, list):
        return {number: str(name)[:MAX_NAME_LENGTH] for number, name in enumerate(raw)}
    if isinstance(raw, dict) and all(_is_class_number(str(key)) for key in raw):
        return {int(key): str(name)[:MAX_NAME_LENGTH] for key, name in raw.items()}
    if raw is None:
        return {}
    raise SourceError(
        f"{file.name}: names: expected a list, or names by number below {PLAUSIBLE_CLASSES:,}, got "
        f"{str(raw)[:80]!r}; correct it"
    )


def _is_class_number(text: str) -> bool:
    return text.isdecimal() and len(text) < 7 and int(text) < PLAUSIBLE_CLASSES


def _keypoint_shape(raw: Any, file: Path) -> tuple[int, int]:
    if raw is None:
        return 0, 0
    is_pair = isinstance(raw, list) and len(raw) == 2 and all(isinstance(one, int) for one in raw)
    if not is_pair or not (0 < raw[0] <= 1000 and raw[1] in (2, 3)):
        raise SourceError(
            f"{file.name}: kpt_shape: expected [number, 2 or 3], got {str(raw)[:80]!r}; correct it"
        )
    return raw[0], raw[1]


def _images(root: Path, entry: str, remarks: Remarks) -> Iterator[str]:
    """Yield the images of a folder, or of a text file that lists them, relative to the root."""
    location = root / entry
    if location.is_dir():
        for directory, folders, files in os.walk(location):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                    yield Path(directory, name).relative_to(root).as_posix()
    elif location.suffix == ".txt" and location.is_file():
        for line in read_text_file(location, max_bytes=1 << 28).splitlines():
            if name := line.strip():
                yield os.path.normpath(name)
    else:
        remarks.add("left_out", "folders of a split that do not exist", entry)


def _annotate(image: AnnotatedImage, dataset: _YoloDataset, used_classes: set[int], remarks: Remarks) -> None:
    parts = Path(image.path).parts
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        parts = (*parts[:last], "labels", *parts[last + 1 :])
    file = dataset.root.joinpath(*parts).with_suffix(".txt")
    if not _stays_below(image.path) or not file.is_file():
        remarks.add("assumed", "images without a text file, which show nothing", image.path)
        return
    if file.stat().st_size > MAX_LABEL_BYTES:
        image.refusal = f"cannot be used: labels {file.name}: expected at most {MAX_LABEL_BYTES:,} bytes"
        return
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.strip():
            _add_line(line, image, dataset, used_classes, remarks)


def _add_line(
    line: str, image: AnnotatedImage, dataset: _YoloDataset, used_classes: set[int], remarks: Remarks
) -> None:
    """Add a line to its image, or note why it is left out."""
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        numbers = []
    keypoints: list[list[float]] = []
    values = numbers[1:]
    if len(values) == 4 + dataset.num_keypoints * dataset.keypoint_width:
        width = dataset.keypoint_width
        points = [values[start : start + width] for start in range(4, len(values), width or 1)]
        keypoints = [[*point[:2], point[2] if width == 3 else 2.0] for point in points]
        cx, cy, w, h = values[:4]
        box = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
    elif len(values) >= 6 and len(values) % 2 == 0 and not dataset.num_keypoints:
        remarks.add("converted", "polygons to the box around them", image.path)
        box = [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]
    else:
        remarks.add("left_out", "lines that are not 'class cx cy width height'", image.path)
        return
    number = numbers[0]
    if not (number >= 0 and number.is_integer()) or not all(map(math.isfinite, numbers)):
        remarks.add("left_out", "lines whose class or numbers make no sense", image.path)
        return
    if number >= dataset.num_classes:
        what = f"lines whose class number is {dataset.num_classes:,} or more"
        remarks.add("left_out", what, f"{number:g} in {image.path}")
        return
    used_classes.add(int(number))
    image.boxes.append(box)
    image.box_labels.append(int(number))
    image.keypoints += keypoints
