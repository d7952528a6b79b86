"""Writes scenes in every supported annotation format, and reads their boxes from an index."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightwell import Index
from scenes import Scene

SCENES = (
    Scene("a.png", 60, 40, (("dog", 5, 6, 25, 30), ("cat", 30, 10, 58, 38))),
    Scene("b.png", 32, 48),
    Scene("c.jpg", 40, 64, (("fish", 8, 8, 24, 56),), orientation=6),
)


def write_coco(folder: Path, scenes: tuple[Scene, ...]) -> Path:
    categories = {"cat": 7, "dog": 3, "fish": 90}
    boxes = [(number, box) for number, scene in enumerate(scenes) for box in scene.boxes]
    content = {
        "images": [
            {"id": n, "file_name": s.name, "width": s.width, "height": s.height} for n, s in enumerate(scenes)
        ],
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
        "annotations": [
            {"id": n, "image_id": image, "category_id": categories[name], "bbox": [x0, y0, x1 - x0, y1 - y0]}
            for n, (image, (name, x0, y0, x1, y1)) in enumerate(boxes)
        ],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    for scene in scenes:
        scene.save(folder)
    return path


def write_yolo(folder: Path, scenes: tuple[Scene, ...]) -> Path:
    (folder / "labels").mkdir()
    names = ["cat", "dog", "fish"]
    for scene in scenes:
        scene.save(folder / "images")
        lines = [
            f"{names.index(name)} {(x0 + x1) / 2 / scene.width} {(y0 + y1) / 2 / scene.height} "
            f"{(x1 - x0) / scene.width} {(y1 - y0) / scene.height}"
            for name, x0, y0, x1, y1 in scene.boxes
        ]
        (folder / "labels" / scene.name).with_suffix(".txt").write_text("\n".join(lines))
    (folder / "data.yaml").write_text("train: images\nnames:\n  0: cat\n  1: dog\n  2: fish\n")
    return folder / "data.yaml"


def write_voc(folder: Path, scenes: tuple[Scene, ...]) -> Path:
    (folder / "Annotations").mkdir()
    for scene in scenes:
        scene.save(folder / "JPEGImages")
        objects = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax>"
            f"<ymax>{y1}</ymax></bndbox></object>"
            for name, x0, y0, x1, y1 in scene.boxes
        )
        size = f"<size><width>{scene.width}</width><height>{scene.height}</height><depth>3</depth></size>"
        xml = f"<annotation><filename>{scene.name}</filename>{size}{objects}</annotation>"
        (folder / "Annotations" / scene.name).with_suffix(".xml").write_text(xml)
    return folder


def write_rows(folder: Path, scenes: tuple[Scene, ...]) -> Path:
    lines = ["path,xmin,ymin,xmax,ymax,class"]
    for scene in scenes:
        scene.save(folder)
        lines += [f"{scene.name},{x0},{y0},{x1},{y1},{name}" for name, x0, y0, x1, y1 in scene.boxes]
        lines += [] if scene.boxes else [f"{scene.name},,,,,"]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    return folder / "rows.csv"


def write_headerless(folder: Path, scenes: tuple[Scene, ...]) -> Path:
    path = write_rows(folder, scenes)
    path.write_text(path.read_text().partition("\n")[2])
    return path


def write_lists(folder: Path, scenes: tuple[Scene, ...]) -> Path:
    lines = ["path,boxes,box_labels"]
    for scene in scenes:
        scene.save(folder)
        boxes = [list(box[1:]) for box in scene.boxes]
        lines.append(f'{scene.name},"{boxes}",{";".join(box[0] for box in scene.boxes)}')
    (folder / "lists.csv").write_text("\n".join(lines) + "\n")
    return folder / "lists.csv"


WRITERS: dict[str, Callable[[Path, tuple[Scene, ...]], Path]] = {
    "coco": write_coco,
    "yolo": write_yolo,
    "voc": write_voc,
    "rows": write_rows,
    "headerless": write_headerless,
    "lists": write_lists,
}


def boxes_of(index: Index) -> dict[str, list[tuple[Any, ...]]]:
    """Return class name and corners of every box, by image name."""
    columns = (index.table[name].to_pylist() for name in ("key", "boxes", "box_labels"))
    return {
        Path(key).name: [
            (index.box_classes[label], *(round(edge, 3) for edge in box))
            for box, label in zip(boxes, labels, strict=True)
        ]
        for key, boxes, labels in zip(*columns, strict=True)
    }


def remarks_of(index: Index) -> dict[str, int]:
    return {f"{one['kind']}: {one['what']}": one["count"] for one in index.summary()["source"]["remarks"]}
