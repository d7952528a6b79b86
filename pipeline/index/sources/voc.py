"""Pascal VOC annotations: one XML file per image, in ``Annotations/`` beside ``JPEGImages/``, or beside the images.

Format: Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, and its development kit. Corners are
1-based inclusive pixel indices; ``xmin - 1`` and ``ymin - 1`` become the left and upper edge. The files in
``ImageSets/Main`` define the splits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ..splits import canonical_split
from .annotated_images import AnnotatedImage, listing_from_images, local_folder
from .labels import MAX_NAME_LENGTH
from .listing import Listing
from .remarks import Remarks

MAX_BYTES = 4 << 20
"""Largest XML file."""
MAX_LIST_BYTES = 1 << 28
"""Largest list of images."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def is_voc(folder: str) -> bool:
    """Return whether a folder has the layout of Pascal VOC."""
    return "://" not in folder and all(Path(folder, name).is_dir() for name in ("Annotations", "JPEGImages"))


def list_voc(folder: str, remarks: Remarks) -> Listing:
    """List the images of a folder with VOC annotations.

    Images without an annotation file have no boxes. Images with an unreadable annotation file get an error status.

    Raises:
        SourceError: there are no images.
    """
    root = local_folder(folder, "voc")
    has_voc_layout = is_voc(str(root))
    image_root = root / "JPEGImages" if has_voc_layout else root
    found: list[tuple[AnnotatedImage, list[str]]] = []
    for file in _images(image_root):
        relative = file.relative_to(image_root)
        xml = (root / "Annotations" / relative if has_voc_layout else file).with_suffix(".xml")
        image = AnnotatedImage(file.relative_to(root).as_posix())
        names = _annotate(image, xml, remarks)
        found.append((image, names))
    classes = sorted({name for _, names in found for name in names})
    numbers = {name: number for number, name in enumerate(classes)}
    splits = _splits(root / "ImageSets" / "Main", remarks)
    for image, names in found:
        image.box_labels = [numbers[name] for name in names]
        image.split = splits.get(Path(image.path).stem)
    return listing_from_images(
        "voc", str(root), [image for image, _ in found], box_classes=classes, remarks=remarks
    )


def _images(folder: Path) -> Iterator[Path]:
    for directory, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            Path(directory, name)
            for name in sorted(files)
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        )


def _annotate(image: AnnotatedImage, xml: Path, remarks: Remarks) -> list[str]:
    """Read an annotation file into an image; return the class names of its boxes."""
    if not xml.is_file():
        remarks.add("unlabelled", "images without an annotation file", image.path)
        return []
    try:
        tree = parse_xml(xml)
    except (OSError, ValueError) as error:
        image.refusal = f"cannot be used: annotations {xml.name}: {error}"
        return []
    image.size = _size(tree)
    names = []
    for one in tree.iter("object"):
        corners = _corners(one.find("bndbox"))
        name = (one.findtext("name") or "").strip()[:MAX_NAME_LENGTH]
        if corners is None or not name:
            remarks.add("left_out", "objects without a name or a box of four numbers", image.path)
            continue
        for flag in ("difficult", "truncated"):
            if (one.findtext(flag) or "0").strip() == "1":
                remarks.add("assumed", f"objects marked as {flag}, which are kept", image.path)
        x0, y0, x1, y1 = corners
        image.boxes.append([x0 - 1, y0 - 1, x1, y1])
        names.append(name)
    return names


def _size(tree: Element) -> tuple[int, int] | None:
    """Return the stated size; None if it is missing or zero, as some tools write it."""
    try:
        width, height = (int(float(tree.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _corners(box: Element | None) -> list[float] | None:
    try:
        return None if box is None else [float(box.findtext(name) or "") for name in _CORNERS]
    except ValueError:
        return None


def parse_xml(path: Path) -> Element:
    """Parse an XML file; a document type declaration is refused, so that no entities are expanded or fetched.

    Raises:
        OSError: the file cannot be read.
        ValueError: too large, not XML, or with a document type.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"expected at most {MAX_BYTES:,} bytes of XML")
    builder = TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(path.read_bytes(), True)
        return builder.close()
    except (expat.ExpatError, AssertionError) as error:
        raise ValueError(
            f"expected XML, got something else ({' '.join(str(error).split())[:100]})"
        ) from error


def _refuse_doctype(*_: object) -> NoReturn:
    raise ValueError("expected XML without a document type, got one that may declare entities")


def _splits(folder: Path, remarks: Remarks) -> dict[str, str]:
    """Read the split of each image from the lists that are named after a split."""
    splits: dict[str, str] = {}
    for file in sorted(folder.glob("*.txt")) if folder.is_dir() else ():
        split = canonical_split(file.stem)
        if split is None:
            remarks.add("left_out", "lists of images that are named after no split", file.name)
            continue
        if not file.is_file() or file.stat().st_size > MAX_LIST_BYTES:
            remarks.add("left_out", "lists of images that are no files or too large", file.name)
            continue
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            fields = line.split()
            if fields and splits.setdefault(fields[0], split) != split:
                remarks.add("merged", "images in two splits, which stay in the first", fields[0])
    if splits:
        remarks.add("assumed", "splits from ImageSets/Main", ", ".join(sorted(set(splits.values()))))
    return splits
