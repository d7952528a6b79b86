"""Masks, boxes and keypoints from the index row to the batch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from annotated import Scene, drawn_scene, plain_scene, read, write_index
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from PIL import Image

SKIP = {"on_error": "skip", "max_bad_share": 1.0}


def test_an_image_without_a_mask_does_not_affect_the_masks_of_others(tmp_path: Path) -> None:
    scenes = [plain_scene(f"{i}.png", mask=np.full((40, 50), i, np.uint8) if i else None) for i in range(4)]
    ((batch,), bad) = read(write_index(tmp_path, scenes), batch={"size": 4})
    assert not bad
    assert batch.masks is not None
    assert batch.has_mask is not None
    assert batch.has_mask.tolist() == [False, True, True, True]
    assert [torch.unique(mask).tolist() for mask in batch.masks] == [[255], [1], [2], [3]]


def test_empty_annotations_differ_from_missing_annotations(tmp_path: Path) -> None:
    scenes = [
        plain_scene("0.png", boxes=[[1, 2, 11, 12]], box_labels=[1], keypoints=[[5, 6, 1]]),
        plain_scene("1.png", boxes=[], box_labels=[], keypoints=[]),
        plain_scene("2.png"),
        plain_scene("3.png", boxes=[[1, 2, 11, 12], [3, 4, 8, 9]]),
        plain_scene("4.png", keypoints=[[5, 6, 2]]),
    ]
    ((batch,), _) = read(write_index(tmp_path, scenes), batch={"size": 5})
    assert batch.boxes is not None
    assert batch.box_labels is not None
    assert batch.keypoints is not None
    assert batch.has_boxes is not None
    assert batch.has_keypoints is not None
    assert batch.masks is None
    assert batch.has_boxes.tolist() == [True, True, False, True, False]
    assert batch.has_keypoints.tolist() == [True, True, False, False, True]
    assert [boxes.shape for boxes in batch.boxes] == [(1, 4), (0, 4), (0, 4), (2, 4), (0, 4)]
    assert [labels.tolist() for labels in batch.box_labels] == [[1], [], [], [-1, -1], []]
    assert [points.shape for points in batch.keypoints] == [
        (1, 1, 3),
        (0, 1, 3),
        (0, 1, 3),
        (2, 1, 3),
        (1, 1, 3),
    ]
    assert not batch.keypoints[3].any()


def test_a_split_without_annotations_has_the_fields_of_the_others(tmp_path: Path) -> None:
    path = write_index(tmp_path, [drawn_scene("a.png", 0), plain_scene("b.png", size=(120, 160))])
    ((batch,), _) = read(path, View(keys=("b.png",)))
    assert batch.masks is not None
    assert batch.has_mask is not None
    assert (batch.masks == 255).all()
    assert not batch.has_mask.any()
    assert batch.boxes is not None
    assert batch.keypoints is not None


def saved(mask: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("backend", ["opencv", "dali"])
def test_a_mask_that_does_not_fit_quarantines_its_image_with_the_reason(tmp_path: Path, backend: Any) -> None:
    good = np.zeros((40, 50), np.uint8)
    path = write_index(tmp_path, [plain_scene(f"{i}.png", mask=good) for i in range(4)])
    (tmp_path / "0.png.mask.png").write_bytes(saved(np.zeros((80, 100), np.uint8)))
    (tmp_path / "1.png.mask.png").write_bytes(saved(np.zeros((40, 50, 3), np.uint8)))
    (tmp_path / "2.png.mask.png").unlink()
    ((batch,), bad) = read(path, backend=backend, errors=SKIP)
    assert batch.keys == ("3.png",)
    assert [(entry["key"], entry["step"]) for entry in bad] == [(f"{i}.png", "mask") for i in range(3)]
    assert "expected 50x40 as the picture, got 100x80" in bad[0]["reason"]
    assert "got RGB" in bad[1]["reason"]
    assert "FileNotFoundError" in bad[2]["reason"]


def test_the_index_checks_headers_of_masks(tmp_path: Path) -> None:
    scenes = [
        plain_scene("0.png", mask=np.zeros((40, 50), np.uint8)),
        plain_scene("1.png", mask=np.zeros((80, 100), np.uint8)),
        plain_scene("2.png", mask_file=b"no picture"),
        plain_scene("3.png", mask=np.zeros((50, 40), np.uint8), orientation=6),
    ]
    path = write_index(tmp_path, scenes)
    statuses = Index.load(path).table["status"].to_pylist()
    assert statuses[0] == "ok"
    assert all(status.startswith("mask ") for status in statuses[1:])
    assert "got 100x80" in statuses[1]
    assert "cannot be used" in statuses[2]
    assert "before EXIF orientation 6" in statuses[3]
    (_, bad) = read(path, errors=SKIP)
    assert [entry["key"] for entry in bad] == ["1.png", "2.png", "3.png"]


def test_a_view_without_usable_images_has_no_batches_with_on_error_skip(tmp_path: Path) -> None:
    path = write_index(tmp_path, [plain_scene("1.png", mask=np.zeros((80, 100), np.uint8))])
    with LocalEngine(num_threads=1).feed(Plan(index=path, errors=SKIP), View()) as feed:
        assert list(feed) == []
        assert feed.counts == {"read": 0, "used": 0, "replaced": 0, "skipped": 1}
        assert "got 100x80" in feed.quarantine[0]["reason"]
        assert LocalEngine().feed(Plan(index=path, errors=SKIP), View(), feed.position()).num_batches == 0


def test_boxes_without_an_area_are_dropped_and_their_image_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    boxes = [
        [20, 20, 20, 40],
        [10, 10, 30, 30],
        [60, 5, 70, 15],
        [30, 30, 10, 10],
        [float("nan"), 0, 5, 5],
        [-5, 35, 8, 60],
        [1, 1, 1.00000001, 30],
    ]
    path = write_index(tmp_path, [plain_scene("0.png", boxes=boxes, box_labels=[0, 1, 0, 0, 0, 0, 0])])
    with caplog.at_level("WARNING", "lightwell"):
        ((batch,), bad) = read(path, augment=[A.HorizontalFlip(p=1)], view=View(augment=True))
    assert not bad
    assert "got 5 of 7 without, which are dropped; the first are in '0.png'" in caplog.text
    assert Index.load(path).summary()["boxes"] == {
        "count": 7,
        "classes": {"car": 6, "tree": 1},
        "without_area": 5,
        "first": ["0.png"],
    }
    assert batch.boxes is not None
    assert batch.box_labels is not None
    assert np.allclose(batch.boxes[0], [[20, 10, 40, 30], [42, 35, 50, 40]], atol=1e-4)
    assert batch.box_labels[0].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({}, [0, 1, 2]),
        ({"min_area": 150}, [0, 1]),
        ({"min_visibility": 0.6}, [0, 2]),
        ({"min_width": 12}, [0]),
        ({"min_height": 12}, [0, 1]),
        ({"max_accept_ratio": 1.5}, [0, 2]),
    ],
)
def test_bbox_params_behave_as_in_albumentations(
    tmp_path: Path, params: dict[str, float], kept: list[int]
) -> None:
    boxes = [[5, 5, 20, 20], [20, 10, 40, 30], [6, 20, 16, 30]]
    path = write_index(tmp_path, [plain_scene("0.png", boxes=boxes, box_labels=[0, 1, -1])])
    crop = A.Crop(0, 0, 30, 40)
    ((batch,), _) = read(path, preprocess=[crop], bbox_params=params)
    package = A.BboxParams("pascal_voc", label_fields=["rows"], clip=True, **params)
    image = np.zeros((40, 50, 3), np.uint8)
    plain = A.Compose([crop], bbox_params=package)(image=image, bboxes=np.array(boxes), rows=np.arange(3))
    assert batch.boxes is not None
    assert [int(row) for row in plain["rows"]] == kept
    assert np.allclose(batch.boxes[0], plain["bboxes"], atol=1e-4)


def test_boxes_of_a_rotated_image_use_upright_coordinates(tmp_path: Path) -> None:
    boxes = [[5, 45, 15, 55], [45, 5, 55, 15]]
    picture = np.zeros((60, 40, 3), np.uint8)
    path = write_index(tmp_path, [Scene("0.png", picture, boxes=boxes, orientation=6)])
    assert Index.load(path).summary()["boxes"] == {
        "count": 2,
        "classes": {"(no class)": 2},
        "without_area": 1,
        "first": ["0.png"],
    }
    ((batch,), _) = read(path)
    assert batch.boxes is not None
    assert np.allclose(batch.boxes[0], [[5, 45, 15, 55]], atol=1e-4)


def test_a_box_outside_the_image_quarantines_it_without_clipping(tmp_path: Path) -> None:
    scenes = [plain_scene("0.png", boxes=[[10, 10, 60, 30]]), plain_scene("1.png", boxes=[[10, 10, 50, 40]])]
    path = write_index(tmp_path, scenes)
    ((batch,), bad) = read(path, bbox_params={"clip": False}, errors=SKIP)
    assert batch.keys == ("1.png",)
    assert (bad[0]["step"], "bbox_params: {clip: true}" in bad[0]["reason"]) == ("boxes", True)


@pytest.mark.parametrize(
    ("step", "annotations"),
    [
        ("boxes", {"boxes": [[1, 2, 3]]}),
        ("boxes", {"boxes": [[1, 2, 3, None]]}),
        ("boxes", {"boxes": [[1, 2, 3, 4]], "box_labels": [1, 0]}),
        ("keypoints", {"keypoints": [[1, 2]]}),
        ("keypoints", {"keypoints": [[1, 2, 2], [3, 4, 2]]}),
        ("keypoints", {"boxes": [[1, 2, 3, 4]], "keypoints": []}),
        ("keypoints", {"keypoints": [[float("inf"), 2, 2]]}),
    ],
)
def test_malformed_annotations_affect_their_image_only(
    tmp_path: Path, step: str, annotations: dict[str, Any]
) -> None:
    full = {"boxes": [[1, 2, 30, 20]], "box_labels": [0], "keypoints": [[5, 5, 2]]}
    path = write_index(tmp_path, [plain_scene("0.png", **annotations), plain_scene("1.png", **full)])
    ((batch,), bad) = read(path, errors=SKIP)
    assert batch.keys == ("1.png",)
    assert [(entry["key"], entry["step"]) for entry in bad] == [("0.png", step)]
    assert "expected" in bad[0]["reason"]


def test_boxes_are_dropped_with_their_labels_and_keypoints(tmp_path: Path) -> None:
    boxes = [[0, 0, 10, 10], [30, 20, 40, 30], [5, 25, 15, 35]]
    points = [[5, 5, 2], [35, 25, 1], [10, 30, 2]]
    path = write_index(tmp_path, [plain_scene("0.png", boxes=boxes, box_labels=[0, 1, 0], keypoints=points)])
    ((batch,), _) = read(path, preprocess=[A.Crop(20, 15, 50, 40)])
    assert batch.boxes is not None
    assert batch.box_labels is not None
    assert batch.keypoints is not None
    assert np.allclose(batch.boxes[0], [[10, 5, 20, 15]], atol=1e-4)
    assert batch.box_labels[0].tolist() == [1]
    assert np.allclose(batch.keypoints[0], [[[15, 10, 1]]])


def test_replaced_images_bring_their_own_annotations(tmp_path: Path) -> None:
    scenes = [
        plain_scene(f"{i}.png", mask=np.full((40, 50), i, np.uint8), boxes=[[i, i, 20 + i, 20 + i]])
        for i in range(8)
    ]
    path = write_index(tmp_path, scenes)
    (tmp_path / "3.png").write_bytes(b"")
    ((batch,), bad) = read(path, batch={"size": 8})
    assert [entry["key"] for entry in bad] == ["3.png"]
    assert batch.masks is not None
    assert batch.boxes is not None
    for row, key in enumerate(batch.keys):
        number = int(key[0])
        assert (batch.masks[row] == number).all()
        assert np.allclose(batch.boxes[row], [[number, number, 20 + number, 20 + number]], atol=1e-4)


def test_rows_are_taken_with_their_annotations(tmp_path: Path) -> None:
    path = write_index(tmp_path, [drawn_scene(f"{i}.png", i) for i in range(5)])
    ((batch,), _) = read(path)
    some = batch.slice_rows(1, 3)
    for name in ("masks", "has_mask", "boxes", "has_boxes", "box_labels", "keypoints", "has_keypoints"):
        assert len(getattr(some, name)) == 2, name
        assert np.array_equal(getattr(some, name)[0], getattr(batch, name)[1]), name


def test_plans_with_other_annotation_rules_have_other_fingerprints(tmp_path: Path) -> None:
    path = write_index(tmp_path, [plain_scene("0.png", boxes=[[1, 2, 11, 12]])])
    plans = [
        Plan(index=path),
        Plan(index=path, bbox_params={"min_area": 1}),
        Plan(index=path, keypoint_params={"remove_invisible": True}),
    ]
    assert len({plan.fingerprint() for plan in plans}) == 3
    assert Plan(index=path, bbox_params={}).fingerprint() == plans[0].fingerprint()
    assert Plan(**plans[1].dump()) == plans[1]
    with pytest.raises(PlanError, match="min_aera"):
        Plan(index=path, bbox_params={"min_aera": 1})


def test_a_flip_moves_keypoints_and_renames_none(tmp_path: Path) -> None:
    scenes = [plain_scene("0.png", boxes=[[1, 2, 11, 12], [15, 4, 30, 9]], keypoints=[[5, 6, 2], [20, 7, 1]])]
    index = write_index(tmp_path, scenes)
    ((plain,), _) = read(index, batch={"size": 1})
    ((flipped,), _) = read(index, batch={"size": 1}, preprocess=[A.HorizontalFlip(p=1.0)])
    assert plain.keypoints is not None
    assert flipped.keypoints is not None
    before, after = plain.keypoints[0], flipped.keypoints[0]
    assert after[..., 1:].tolist() == before[..., 1:].tolist()
    total = before[..., 0] + after[..., 0]
    assert np.allclose(total, total.reshape(-1)[0])
    assert (np.diff(before[..., 0].reshape(-1)) > 0).all()
    assert (np.diff(after[..., 0].reshape(-1)) < 0).all()
