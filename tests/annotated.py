"""Indexes of generated images whose masks, boxes and keypoints are drawn into the pixels, so that tests can locate them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from lightwell.pipeline.batch.batch import Batch
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import SCHEMA, Index
from lightwell.pipeline.load.decode.orientation import upright
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from PIL import Image

RED, GREEN, GRAY = (230, 20, 20), (20, 230, 20), (90, 90, 90)
INVERSE = {6: 8, 8: 6}
"""EXIF orientations that are not their own inverse."""


@dataclass
class Scene:
    """An upright image with its annotations; None for missing ones."""

    name: str
    image: np.ndarray
    mask: np.ndarray | None = None
    boxes: list[list[float]] | None = None
    box_labels: list[int] | None = None
    keypoints: list[list[float]] | None = None
    orientation: int = 1
    mask_file: bytes | None = None
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of Pillow's ``save``."""


def drawn_scene(name: str, number: int, *, orientation: int = 1, size: tuple[int, int] = (120, 160)) -> Scene:
    """Draw a red rectangle, which is the box and label 1 of the mask, and a green square around the keypoint."""
    rng = np.random.default_rng(number)
    height, width = size
    image = np.full((height, width, 3), GRAY, np.uint8)
    mask = np.zeros(size, np.uint8)
    x0, y0 = int(rng.integers(8, width // 2 - 30)), int(rng.integers(8, height // 2))
    x1, y1 = x0 + int(rng.integers(20, 35)), y0 + int(rng.integers(20, 40))
    image[y0:y1, x0:x1] = RED
    mask[y0:y1, x0:x1] = 1
    x, y = int(rng.integers(width // 2 + 20, width - 20)), int(rng.integers(20, height - 20))
    image[y - 4 : y + 5, x - 4 : x + 5] = GREEN
    return Scene(name, image, mask, [[x0, y0, x1, y1]], [1], [[x, y, 2]], orientation)


def write_index(
    folder: Path, scenes: Sequence[Scene], *, keypoint_names: tuple[str, ...] = ("point",)
) -> Path:
    """Write images, stored with their EXIF orientation, and masks, and index them with their annotations."""
    rows = ["path,label,mask"]
    for scene in scenes:
        exif = Image.Exif()
        exif[274] = scene.orientation
        stored = upright(scene.image, INVERSE.get(scene.orientation, scene.orientation))
        Image.fromarray(stored).save(folder / scene.name, exif=exif, **scene.options)
        mask = f"{scene.name}.mask.png"
        if scene.mask_file is not None:
            (folder / mask).write_bytes(scene.mask_file)
        elif scene.mask is not None:
            Image.fromarray(scene.mask).save(folder / mask)
        has_mask = scene.mask is not None or scene.mask_file is not None
        rows.append(f"{scene.name},a,{mask if has_mask else ''}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    index = build_index(folder / "table.csv")
    table = index.table
    by_name = {scene.name: scene for scene in scenes}
    for name in ("boxes", "box_labels", "keypoints"):
        values = [getattr(by_name[key], name) for key in table["key"].to_pylist()]
        column = pa.array(values, SCHEMA.field(name).type)
        table = table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
    path = folder / "index.parquet"
    Index(table, index.classes, box_classes=("car", "tree"), keypoint_names=keypoint_names).save(path)
    return path


def plain_scene(name: str, *, size: tuple[int, int] = (40, 50), **annotations: Any) -> Scene:
    """Return a gray image."""
    return Scene(name, np.full((*size, 3), 90, np.uint8), **annotations)


def read(
    path: Path, view: View | None = None, backend: Any = None, **plan: Any
) -> tuple[list[Batch], list[Any]]:
    """Read all batches and the quarantine."""
    opened = LocalEngine(num_threads=2, backend=backend).feed(Plan(index=path, **plan), view or View())
    with opened as feed:
        return list(feed), list(feed.quarantine)
