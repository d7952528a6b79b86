"""COCO, YOLO, VOC and table annotations: the same scenes give the same boxes, and only invalid ones are left out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from annotation_formats import SCENES, WRITERS, boxes_of, remarks_of, write_coco, write_voc, write_yolo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightwell import Index, LocalEngine, Plan, SourceError, View, build_index
from lightwell.pipeline.index.summary import remark_lines
from scenes import Scene, shows


@pytest.mark.parametrize("name", WRITERS)
def test_each_format_gives_the_boxes_that_are_drawn_in_the_pictures(name: str, tmp_path: Path) -> None:
    index = build_index(WRITERS[name](tmp_path, SCENES))
    assert boxes_of(index) == {scene.name: [*scene.boxes] for scene in SCENES}
    assert set(index.table["status"].to_pylist()) == {"ok"}
    index.save(tmp_path / "index.parquet")
    plan = Plan(index=tmp_path / "index.parquet", batch={"size": 1})
    with LocalEngine(num_threads=1).feed(plan, View()) as feed:
        for batch in feed:
            scene = next(one for one in SCENES if Path(batch.keys[0]).name == one.name)
            assert batch.boxes is not None
            assert len(batch.boxes[0]) == len(scene.boxes)
            for box, (label, *_) in zip(batch.boxes[0], scene.boxes, strict=True):
                assert shows(batch.images[0].numpy(), box, label)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Scene, ...]:
    found = []
    for number in range(draw(st.integers(1, 3))):
        width, height = draw(st.integers(8, 40)), draw(st.integers(8, 40))
        boxes = []
        for _ in range(draw(st.integers(0, 3))):
            x0, y0 = draw(st.integers(0, width - 2)), draw(st.integers(0, height - 2))
            x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
            boxes.append((draw(st.sampled_from(["cat", "dog", "fish"])), x0, y0, x1, y1))
        orientation = draw(st.sampled_from([1, 3, 5, 6, 7, 8]))
        suffix = "png" if orientation == 1 else "jpg"
        found.append(Scene(f"{number}.{suffix}", width, height, tuple(boxes), orientation))
    return tuple(found)


@given(scenes())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_formats_give_the_same_boxes_for_any_scene(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[Scene, ...]
) -> None:
    for name, write in WRITERS.items():
        if name == "headerless" and not drawn[0].boxes:
            continue  # its first line has no numbers to tell it by
        folder = tmp_path_factory.mktemp(name)
        found = boxes_of(build_index(write(folder, drawn)))
        assert found == {scene.name: [*scene.boxes] for scene in drawn}, name


def coco(folder: Path, **changes: Any) -> Index:
    """Index the scenes with some keys of their COCO file replaced, or changed by a function."""
    path = write_coco(folder, SCENES)
    content = json.loads(path.read_text())
    for name, change in changes.items():
        content[name] = change(content[name]) if callable(change) else change
    path.write_text(json.dumps(content))
    return build_index(path)


def test_annotations_in_stored_pixels_of_a_rotated_photo_are_rotated(tmp_path: Path) -> None:
    scene = SCENES[2]  # stored 64 x 40, turned by 90 degrees clockwise to be shown

    def to_stored(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        ((_, x0, y0, x1, y1),) = scene.boxes
        last = annotations[-1] | {"bbox": [y0, scene.width - x1, y1 - y0, x1 - x0]}
        return [*annotations[:-1], last]

    def turn(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [*images[:-1], images[-1] | {"width": scene.height, "height": scene.width}]

    index = coco(tmp_path, annotations=to_stored, images=turn)
    assert boxes_of(index)["c.jpg"] == [*scene.boxes]


def test_a_stated_size_that_does_not_match_makes_its_image_unusable(tmp_path: Path) -> None:
    index = coco(tmp_path, images=lambda images: [images[0] | {"width": 600, "height": 400}, *images[1:]])
    bad, *good = index.table["status"].to_pylist()
    assert bad == (
        "annotations: expected a picture of 600x400 as they state, got 60x40; annotate this file, or restore the one that was "
        "annotated"
    )
    assert good == ["ok", "ok"]


@pytest.mark.parametrize(
    ("bbox", "remark"),
    [
        ([10, 10, 0, 5], "left_out: boxes without an area"),
        ([10, 10, 5, 0], "left_out: boxes without an area"),
        ([10, 10, -5, 5], "left_out: boxes whose second corner lies before the first"),
        ([100, 100, 5, 5], "left_out: boxes outside their picture"),
        ([math.nan, 0, 5, 5], "left_out: boxes with numbers that are not finite"),
        ([math.inf, 0, 5, 5], "left_out: boxes with numbers that are not finite"),
        ([1, 2, 3], "left_out: annotations without a box of four numbers"),
        (["a", 2, 3, 4], "left_out: annotations without a box of four numbers"),
        (None, "left_out: annotations without a box of four numbers"),
        (10**400, "left_out: annotations without a box of four numbers"),
    ],
)
def test_an_invalid_box_is_left_out_and_counted(bbox: Any, remark: str, tmp_path: Path) -> None:
    index = coco(tmp_path, annotations=lambda found: [*found, found[0] | {"bbox": bbox}])
    assert boxes_of(index) == {scene.name: [*scene.boxes] for scene in SCENES}
    assert remarks_of(index)[remark] == 1
    assert any(remark.partition(": ")[2] in line for line in index_lines(index))


def index_lines(index: Index) -> list[str]:
    from lightwell.pipeline.index.sources.remarks import Remarks

    return Remarks(index.summary()["source"]["remarks"]).lines()


def test_a_box_beyond_the_image_border_is_clipped_and_counted(tmp_path: Path) -> None:
    index = coco(tmp_path, annotations=lambda found: [found[0] | {"bbox": [-5, 6, 30, 100]}, *found[1:]])
    assert boxes_of(index)["a.png"][0] == ("dog", 0, 6, 25, 40)
    assert remarks_of(index)["converted: boxes that reached beyond their picture and were clipped"] == 1


@pytest.mark.parametrize(
    ("changes", "remark"),
    [
        (
            {"annotations": lambda f: [*f, f[0] | {"image_id": 99}]},
            "annotations of images that are not listed",
        ),
        ({"annotations": lambda f: [*f, f[0] | {"category_id": 99}]}, "annotations of unknown categories"),
        ({"annotations": lambda f: [*f, f[0] | {"iscrowd": 1}]}, "crowd annotations"),
        ({"annotations": lambda f: [*f, 5, None, []]}, "annotations of images that are not listed"),
        ({"images": lambda f: [*f, {"id": 50}]}, "images without an id or a file_name"),
        ({"images": lambda f: [*f, "text"]}, "images without an id or a file_name"),
        ({"categories": lambda f: [*f, {"name": "bird"}]}, "categories without an id"),
    ],
)
def test_an_invalid_entry_of_a_coco_file_is_left_out(
    changes: dict[str, Any], remark: str, tmp_path: Path
) -> None:
    index = coco(tmp_path, **changes)
    assert boxes_of(index) == {scene.name: [*scene.boxes] for scene in SCENES}
    assert remarks_of(index)[f"left_out: {remark}"] >= 1


def test_ids_may_be_text_and_numbers_in_one_file(tmp_path: Path) -> None:
    index = coco(
        tmp_path, annotations=lambda found: [one | {"image_id": str(one["image_id"])} for one in found]
    )
    assert boxes_of(index) == {scene.name: [*scene.boxes] for scene in SCENES}


def test_keypoints_come_with_their_boxes_and_their_names(tmp_path: Path) -> None:
    names = ["nose", "tail"]
    index = coco(
        tmp_path,
        categories=lambda found: [one | {"keypoints": names} for one in found],
        annotations=lambda found: [found[0] | {"keypoints": [6, 7, 2, 20, 25, 1]}, *found[1:]],
    )
    assert index.keypoint_names == ("nose", "tail")
    points = index.table["keypoints"].to_pylist()
    assert points[0] == [[6, 7, 2], [20, 25, 1], [0, 0, 0], [0, 0, 0]]
    assert points[1] == []


def test_the_split_of_a_coco_file_is_the_one_in_its_name(tmp_path: Path) -> None:
    path = write_coco(tmp_path, SCENES).rename(tmp_path / "instances_val2017.json")
    index = build_index(path)
    assert set(index.table["split"].to_pylist()) == {"val"}
    assert "assumed: split of all images, from the name 'instances_val2017.json'" in remarks_of(index)


def test_images_are_found_below_the_root_and_missing_ones_are_named(tmp_path: Path) -> None:
    path = write_coco(tmp_path, SCENES)
    (tmp_path / "other").mkdir()
    moved = path.rename(tmp_path / "other" / "instances.json")
    with pytest.raises(SourceError, match="name their folder with --root"):
        build_index(moved)
    assert len(build_index(moved, root=tmp_path)) == 3


@pytest.mark.parametrize(
    "line", ["", "5", "0 a b c d", "0 0.5 0.5", "-1 0.5 0.5 0.1 0.1", "0.5 0.5 0.5 0.1 0.1", "0 nan 0 1 1"]
)
def test_an_invalid_line_of_a_yolo_file_is_left_out(line: str, tmp_path: Path) -> None:
    path = write_yolo(tmp_path, SCENES)
    labels = tmp_path / "labels" / "a.txt"
    labels.write_text(f"{labels.read_text()}\n{line}\n")
    index = build_index(path)
    assert boxes_of(index) == {scene.name: [*scene.boxes] for scene in SCENES}
    assert any("lines" in remark for remark in remarks_of(index)) == bool(line)


@pytest.mark.parametrize("number", ["10000", "999999", "1e300"])
def test_a_class_number_that_would_name_ten_thousand_classes_costs_its_line_only(
    number: str, tmp_path: Path
) -> None:
    path = write_yolo(tmp_path, SCENES)
    labels = tmp_path / "labels" / "a.txt"
    labels.write_text(f"{labels.read_text()}\n{number} 0.5 0.5 0.1 0.1\n")
    index = build_index(path)
    assert boxes_of(index) == {scene.name: [*scene.boxes] for scene in SCENES}
    assert index.box_classes == ("cat", "dog", "fish")
    assert any("lines whose class number is 10,000 or more" in remark for remark in remarks_of(index))


def test_as_many_classes_as_a_yolo_file_names_are_read(tmp_path: Path) -> None:
    path = write_yolo(tmp_path, SCENES[:1])
    path.write_text(f"train: images\nnames: [{', '.join(f'c{number}' for number in range(10_002))}]\n")
    (tmp_path / "labels" / "a.txt").write_text("10001 0.3 0.5 0.4 0.6\n")
    assert boxes_of(build_index(path))["a.png"] == [("c10001", 6, 8, 30, 32)]


def test_yolo_polygons_and_poses_are_read_as_boxes_and_keypoints(tmp_path: Path) -> None:
    path = write_yolo(tmp_path, SCENES[:1])
    (tmp_path / "labels" / "a.txt").write_text("1 0.1 0.2 0.5 0.2 0.5 0.8 0.1 0.8\n")
    assert boxes_of(build_index(path))["a.png"] == [("dog", 6, 8, 30, 32)]
    path.write_text(path.read_text() + "kpt_shape: [1, 3]\n")
    (tmp_path / "labels" / "a.txt").write_text("1 0.3 0.5 0.4 0.6 0.25 0.75 2\n")
    index = build_index(path)
    assert boxes_of(index)["a.png"] == [("dog", 6, 8, 30, 32)]
    assert index.table["keypoints"].to_pylist() == [[[15, 30, 2]]]


def test_a_folder_with_images_and_labels_is_a_yolo_dataset_and_its_folders_are_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        SCENES[0].save(tmp_path / "images" / split)
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    index = build_index(tmp_path)
    assert index.table["split"].to_pylist() == ["train", "val"]
    assert index.table["boxes"].to_pylist() == [[[15, 10, 45, 30]]] * 2


def test_voc_splits_come_from_its_lists_and_marked_objects_are_counted(tmp_path: Path) -> None:
    write_voc(tmp_path, SCENES)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\n")
    (lists / "cat_train.txt").write_text("a 1\nb -1\n")
    xml = tmp_path / "Annotations" / "a.xml"
    xml.write_text(xml.read_text().replace("<bndbox>", "<difficult>1</difficult><bndbox>", 1))
    index = build_index(tmp_path)
    assert index.table["split"].to_pylist() == ["train", "train", "val"]
    assert remarks_of(index)["assumed: objects marked as difficult, which are kept"] == 1


def test_an_unreadable_voc_file_makes_its_image_unusable(tmp_path: Path) -> None:
    write_voc(tmp_path, SCENES)
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation><object>")
    (tmp_path / "Annotations" / "b.xml").unlink()
    index = build_index(tmp_path)
    bad, *good = index.table["status"].to_pylist()
    assert bad.startswith("cannot be used: annotations a.xml: expected XML, got something else")
    assert good == ["ok", "ok"]
    assert remarks_of(index)["unlabelled: images without an annotation file"] == 1


def test_the_summary_counts_boxes_by_class(tmp_path: Path) -> None:
    index = build_index(write_coco(tmp_path, SCENES))
    assert index.summary()["boxes"]["classes"] == {"dog": 1, "cat": 1, "fish": 1}
    assert index.summary()["boxes"]["count"] == 3
    assert remark_lines(index)[0] == "boxes: 3 (dog 1, cat 1, fish 1)"
