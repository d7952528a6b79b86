"""Detects the annotation format of a source (COCO, YOLO or Pascal VOC) and lists its images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from .annotated_images import FORMAT_NAMES, AnnotationKind
from .coco import is_coco, list_coco
from .listing import Listing
from .remarks import Remarks
from .voc import is_voc, list_voc
from .yolo import is_yolo, list_yolo


def list_annotated(
    source: str, root: Path | str | None, kind: AnnotationKind | Literal["auto", "none"]
) -> Listing | None:
    """List the images of a source with COCO, YOLO or VOC annotations; None for a source without.

    Args:
        source: a file or a folder.
        root: folder of the images, for COCO and YOLO files.
        kind: annotation format; ``auto`` detects it from the file name or the folder layout.

    Raises:
        SourceError: the annotations cannot be read.
    """
    root_path = None if root is None else str(root)
    remarks = Remarks()
    format_name = _detect_format(source) if kind == "auto" else None if kind == "none" else kind
    if format_name is None:
        return None
    remarks.add("assumed", f"source with {FORMAT_NAMES[format_name]} annotations")
    if format_name == "coco":
        return list_coco(source, root_path, remarks)
    return list_voc(source, remarks) if format_name == "voc" else list_yolo(source, root_path, remarks)


def _detect_format(source: str) -> AnnotationKind | None:
    if is_coco(source):
        return "coco"
    if is_voc(source):
        return "voc"
    return "yolo" if is_yolo(source) else None
