"""Annotation files of strangers with anything in any place: COCO, YOLO and Pascal VOC."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lightwell import Index, build_index
from pictures import make_picture, write_picture
from strangers import Strangers, statuses, tried

STRANGERS = Strangers()
GOOD = "good.png"
WILD = [
    None, True, 0, 1, -1, 2, 1.0, 1.5, float("nan"), float("inf"), 1e308, -(2**63), 2**64, 10**40, "", "1", "x", "\ud800", "\0",
    "../up.png", "/etc/passwd", "good.png", "other.png", "http://127.0.0.1:1/a.png", "\x1b[31m", [], [[]], [1], [0, 0, 4, 4],
    [0, 0, -4, 4], [float("nan")] * 4, ["0", "0", "4", "4"], [0, 0, 1e308, 1e308], [[0, 0, 4, 4]], {}, {"id": {"id": 1}}, "9" * 400,
]  # fmt: skip
VALUE = st.sampled_from(WILD)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures, in the places where each format has them."""
    place = tmp_path_factory.mktemp("annotated")
    for inner in ("coco", "yolo/images", "voc/JPEGImages"):
        write_picture(place / inner / GOOD, make_picture(0, 8, 8))
        write_picture(place / inner / "other.png", make_picture(1, 8, 8))
    (place / "yolo" / "labels").mkdir()
    for inner in ("Annotations", "ImageSets/Main"):
        (place / "voc" / inner).mkdir(parents=True)
    return place


def boxes_inside(index: Index) -> None:
    for row in index.table.select(["status", "boxes", "box_labels"]).to_pylist():
        for x0, y0, x1, y1 in (row["boxes"] or ()) if row["status"] == "ok" else ():
            assert 0 <= x0 < x1 <= 8
            assert 0 <= y0 < y1 <= 8
        labels = row["box_labels"]
        assert labels is None or len(labels) == len(row["boxes"] or ())
        assert all(0 <= label < len(index.box_classes) for label in labels or ())


def entries(keys: list[str], **usual: Any) -> st.SearchStrategy[dict[str, Any]]:
    known = {key: st.sampled_from([value, value, *WILD]) for key, value in usual.items()}
    return st.fixed_dictionaries({}, optional={**dict.fromkeys(keys, VALUE), **known})


@tried(600)
@given(
    images=st.lists(entries(["width", "height"], id=2, file_name="other.png") | VALUE, max_size=4),
    annotations=st.lists(
        entries(["keypoints", "iscrowd", "segmentation"], image_id=1, category_id=1, bbox=[0, 0, 4, 4])
        | VALUE,
        max_size=5,
    ),
    categories=st.lists(entries(["keypoints", "supercategory"], id=1, name="cat") | VALUE, max_size=3),
    missing=st.sampled_from(["", "", "", "annotations", "categories"]),
)
def test_a_coco_file_costs_what_makes_no_sense(
    folder: Path, images: list[Any], annotations: list[Any], categories: list[Any], missing: str
) -> None:
    """Ids repeat, refer to each other or to nothing, boxes are negative, NaN or nested, keys are missing: the picture stays."""
    content = {
        "images": [{"id": 77, "file_name": GOOD, "width": 8, "height": 8}, *images],
        "annotations": annotations,
        "categories": categories,
    }
    content.pop(missing, None)
    path = folder / "coco" / "x.json"
    path.write_text(json.dumps(content))
    index = STRANGERS.index(path)
    assert index is not None
    again = any(
        isinstance(one, dict) and (one.get("id") == 77 or one.get("file_name") == GOOD) for one in images
    )
    assert again or statuses(index)[GOOD] == "ok"
    boxes_inside(index)


WORDS = st.sampled_from(
    [
        "0",
        "1",
        "-1",
        "7",
        "999999",
        "1e9",
        "0.5",
        "-0.5",
        "1.5",
        "nan",
        "inf",
        "x",
        "1e400",
        "\0",
        "\x1b[1m",
        "٣",
        "1_0",
        "0x1",
    ]
)
LINES = st.lists(st.lists(WORDS, max_size=9).map(" ".join), max_size=5).map("\n".join)
NAMES = st.sampled_from(
    [
        "[cat, dog]",
        "{0: cat, 5: dog}",
        "{x: cat}",
        "5",
        "null",
        "[[cat]]",
        "{0: {a: b}}",
        "{9999: cat}",
        "['\\0', \"\\ud800\"]",
    ]
)
PLACES = st.sampled_from(
    ["images", "[images, images]", "..", "/", "images/../..", "gone", "5", "{a: b}", "null", "images/x.txt"]
)


@tried(500)
@example(lines="0 0.5 0.5 0.5 0.5", other="", names="{999999: cat}", train="images", shape="null")
@given(
    lines=LINES,
    other=LINES,
    names=NAMES,
    train=PLACES,
    shape=st.sampled_from(["null", "[1, 3]", "[2, 2]", "[0, 0]", "x"]),
)
def test_a_yolo_data_set_costs_what_makes_no_sense(
    folder: Path, lines: str, other: str, names: str, train: str, shape: str
) -> None:
    """Labels hold any words, data.yaml any names, folders and shapes: boxes lie inside their pictures, or one line says why."""
    root = folder / "yolo"
    (root / "labels" / "good.txt").write_text(lines)
    (root / "labels" / "other.txt").write_bytes(other.encode("utf-16"))
    (root / "data.yaml").write_text(
        f"path: .\ntrain: {train}\nval: images\nnames: {names}\nkpt_shape: {shape}\n"
    )
    index = STRANGERS.index(root / "data.yaml")
    if index is not None:
        assert statuses(index)["images/good.png"] == "ok"
        boxes_inside(index)


NUMBERS = st.sampled_from(
    [
        "1",
        "4",
        "8",
        "0",
        "-5",
        "9",
        "1e3",
        "nan",
        "inf",
        "-inf",
        "",
        "x",
        "1e400",
        "\u0663",
        " 4 ",
        "9" * 5000,
    ]
)
XML = st.recursive(
    st.sampled_from(
        ["", "cat", "&lt;", "&#0;", "&evil;", "\x01", "<![CDATA[x]]>", "<!-- - -->", "<?php x ?>", "é"]
    ),
    lambda inner: st.tuples(
        st.sampled_from(
            ["object", "name", "bndbox", "size", "width", "x:y", "object a='1' a='2'", "annotation"]
        ),
        inner,
    ).map(lambda pair: f"<{pair[0]}>{pair[1]}</{pair[0].split()[0]}>"),
    max_leaves=4,
)


@tried(500)
@given(
    corners=st.lists(NUMBERS, min_size=4, max_size=4),
    size=st.tuples(NUMBERS, NUMBERS),
    name=XML,
    extra=XML,
    lists=st.sampled_from(["", "good\n", "../good 1\n", "good -1\nother x\n", "\0", "x" * 1000]),
)
def test_a_voc_folder_costs_what_makes_no_sense(
    folder: Path, corners: list[str], size: tuple[str, str], name: str, extra: str, lists: str
) -> None:
    """Corners, sizes and names hold any text, tags stand in any place: at most the picture is refused, the other one is not."""
    root = folder / "voc"
    box = "".join(
        f"<{tag}>{value}</{tag}>"
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    (root / "Annotations" / "good.xml").write_text(
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>"
        f"<object><name>{name}</name><bndbox>{box}</bndbox></object>{extra}</annotation>"
    )
    (root / "ImageSets" / "Main" / "train.txt").write_text(lists)
    index = STRANGERS.index(root)
    assert index is not None
    assert len(index) == 2
    assert statuses(index)["JPEGImages/other.png"] == "ok"
    boxes_inside(index)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_list_of_images_that_is_no_file_is_left_out_without_waiting(tmp_path: Path, kind: str) -> None:
    """A list of a VOC folder, a label or an annotation is a pipe or a device: it is passed over, and nothing waits."""
    root = tmp_path / "voc"
    write_picture(root / "JPEGImages" / GOOD, make_picture(0, 8, 8))
    for place in (root / "ImageSets" / "Main" / "val.txt", root / "Annotations" / "good.xml"):
        place.parent.mkdir(parents=True)
        os.mkfifo(place) if kind == "pipe" else place.symlink_to("/dev/zero")
    assert build_index(root).table["status"].to_pylist() == ["ok"]
    yolo = tmp_path / "yolo"
    write_picture(yolo / "images" / GOOD, make_picture(0, 8, 8))
    for place in (yolo / "labels" / "good.txt", yolo / "labels" / "classes.txt"):
        place.parent.mkdir(exist_ok=True)
        os.mkfifo(place) if kind == "pipe" else place.symlink_to("/dev/zero")
    assert build_index(yolo, annotations="yolo").table["status"].to_pylist() == ["ok"]


def test_a_coco_file_that_declares_a_billion_boxes_is_read_as_what_it_holds(folder: Path) -> None:
    """A file states counts of a billion, and holds 200,000 boxes of one picture: the picture costs itself, soon."""
    random.seed(0)
    one = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}
    content = {
        "info": {"num_annotations": 10**9},
        "images": [{"id": 1, "file_name": GOOD, "num_boxes": 10**9}, {"id": 2, "file_name": "other.png"}],
        "annotations": [one] * 200_000,
        "categories": [{"id": 1, "name": "cat"}],
    }
    path = folder / "coco" / "x.json"
    path.write_text(json.dumps(content))
    started = time.process_time()
    index = build_index(path)
    assert time.process_time() - started < 60
    assert statuses(index)["other.png"] == "ok"


def test_enough_was_tried() -> None:
    """The count of what was tried above."""
    STRANGERS.check()
