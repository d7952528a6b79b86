"""CutMix and MixUp of annotations, compared with a plain per-pixel reference implementation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from annotated import drawn_scene, write_index
from hypothesis import given, settings
from hypothesis import strategies as st
from lightwell.pipeline.batch.batch import Batch
from lightwell.pipeline.batch.mix_annotations import Rectangle, cutmix_annotations, mixup_annotations
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.plan.plan import BboxParams, Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine

HEIGHT, WIDTH, KEYPOINTS = 12, 16, 2


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """A batch of small images with boxes in whole pixels."""
    number = draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    counts = rng.integers(0, 4, number)
    has_mask, has_boxes, has_keypoints = (rng.random((3, number)) < 0.8).tolist()
    boxes, labels, keypoints, masks = [], [], [], []
    for row, count in enumerate(counts.tolist()):
        num_boxes = count if has_boxes[row] else 0
        x = np.sort(
            np.stack([rng.permutation(WIDTH + 1)[:2] for _ in range(num_boxes)] or [[0, 0]])[:num_boxes], 1
        )
        y = np.sort(
            np.stack([rng.permutation(HEIGHT + 1)[:2] for _ in range(num_boxes)] or [[0, 0]])[:num_boxes], 1
        )
        boxes.append(np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1).astype(np.float32))
        labels.append(rng.integers(-1, 3, num_boxes))
        instances = num_boxes if has_boxes[row] else int(has_keypoints[row])
        points = rng.integers(0, (WIDTH, HEIGHT, 3), (instances, KEYPOINTS, 3)).astype(np.float32)
        keypoints.append(points if has_keypoints[row] else np.zeros_like(points))
        masks.append(np.full((HEIGHT, WIDTH), row if has_mask[row] else 255, np.uint8))
    return Batch(
        images=torch.zeros(number, HEIGHT, WIDTH, 3, dtype=torch.uint8),
        labels=torch.arange(number),
        keys=tuple(map(str, range(number))),
        epoch=0,
        step=0,
        replaced=np.zeros(number, bool),
        padding=np.zeros(number, bool),
        masks=torch.from_numpy(np.stack(masks)),
        has_mask=np.array(has_mask),
        boxes=tuple(boxes),
        has_boxes=np.array(has_boxes),
        box_labels=tuple(labels),
        keypoints=tuple(keypoints),
        has_keypoints=np.array(has_keypoints),
    )


@st.composite
def rectangles(draw: st.DrawFn) -> Rectangle:
    x0, x1 = sorted(draw(st.tuples(st.integers(0, WIDTH), st.integers(0, WIDTH))))
    y0, y1 = sorted(draw(st.tuples(st.integers(0, HEIGHT), st.integers(0, HEIGHT))))
    return Rectangle(x0, y0, x1, y1)


params = st.builds(
    BboxParams,
    min_area=st.sampled_from([0, 5, 20]),
    min_visibility=st.sampled_from([0, 0.3, 0.75]),
    min_width=st.sampled_from([0, 3]),
    min_height=st.sampled_from([0, 4]),
    max_accept_ratio=st.sampled_from([None, 2]),
)


def shown(box: np.ndarray, visible: np.ndarray, rules: BboxParams) -> list[float] | None:
    """Return the bounds of a box's visible pixels, pixel by pixel; None if too little remains."""
    x0, y0, x1, y1 = box.astype(int).tolist()
    pixels = [(x, y) for x in range(x0, x1) for y in range(y0, y1) if visible[y, x]]
    area = (x1 - x0) * (y1 - y0)
    if len(pixels) == area:
        return [x0, y0, x1, y1]
    if not pixels:
        return None
    xs, ys = zip(*pixels, strict=True)
    bounds = [min(xs), min(ys), max(xs) + 1, max(ys) + 1]
    width, height = bounds[2] - bounds[0], bounds[3] - bounds[1]
    if len(pixels) < rules.min_area or len(pixels) < rules.min_visibility * area:
        return None
    if width < rules.min_width or height < rules.min_height:
        return None
    if rules.max_accept_ratio is not None and max(width / height, height / width) > rules.max_accept_ratio:
        return None
    return bounds


@given(batch=batches(), rectangle=rectangles(), rules=params)
@settings(deadline=None, max_examples=150)
def test_cutmix_keeps_visible_annotations(batch: Batch, rectangle: Rectangle, rules: BboxParams) -> None:
    mixed = cutmix_annotations(batch, rectangle, rules)
    if not rectangle.area:
        assert mixed is batch
        return
    pasted = np.zeros((HEIGHT, WIDTH), bool)
    pasted[rectangle.slices] = True
    for row in range(len(batch)):
        sources = [(row, ~pasted), (row - 1, pasted)]
        mask = np.where(pasted, batch.masks[row - 1], batch.masks[row])
        assert np.array_equal(mixed.masks[row], mask)
        assert mixed.has_mask[row] == (batch.has_mask[row] or batch.has_mask[row - 1])
        both = batch.has_boxes[row] and batch.has_boxes[row - 1]
        assert mixed.has_boxes[row] == both
        boxes, labels, keypoints = [], [], []
        for source, visible in sources:
            points = batch.keypoints[source].copy()
            for point in points.reshape(-1, 3):
                point[2] *= visible[int(point[1]), int(point[0])]
            kept = range(len(points))
            if batch.has_boxes[source]:
                found = [shown(box, visible, rules) for box in batch.boxes[source]]
                kept = [number for number, box in enumerate(found) if box is not None]
                boxes += [found[number] for number in kept]
                labels += batch.box_labels[source][kept].tolist()
            else:
                kept = [number for number in kept if points[number, :, 2].any()]
            keypoints.append(points[list(kept)])
        assert np.array_equal(mixed.boxes[row].reshape(-1, 4), np.reshape(boxes if both else [], (-1, 4)))
        assert mixed.box_labels[row].tolist() == (labels if both else [])
        assert np.array_equal(mixed.keypoints[row], np.concatenate(keypoints))
        assert mixed.has_keypoints[row] == (batch.has_keypoints[row] or batch.has_keypoints[row - 1])


@given(batch=batches())
@settings(deadline=None, max_examples=40)
def test_mixup_keeps_the_boxes_of_both_images(batch: Batch) -> None:
    mixed = mixup_annotations(batch)
    for row in range(len(batch)):
        both = batch.has_boxes[row] and batch.has_boxes[row - 1]
        boxes = np.concatenate([batch.boxes[row], batch.boxes[row - 1]])
        assert np.array_equal(mixed.boxes[row], boxes if both else boxes[:0])
        assert len(mixed.box_labels[row]) == len(mixed.boxes[row])
        visible = sum((batch.keypoints[one][..., 2] > 0).sum() for one in (row, row - 1))
        assert (mixed.keypoints[row][..., 2] > 0).sum() == visible


def test_cutmix_in_a_feed_moves_masks_and_boxes_with_the_pixels(tmp_path: Path) -> None:
    path = write_index(tmp_path, [drawn_scene(f"{i}.png", i) for i in range(8)])
    plan = Plan(index=path, mix={"kind": "CutMix", "alpha": 1.0}, batch={"size": 8})
    with LocalEngine(num_threads=2).feed(plan, View(augment=True, num_epochs=6)) as feed:
        for batch in feed:
            red = (batch.images[..., 0] > 200) & (batch.images[..., 1] < 60)
            assert torch.equal(batch.masks == 1, red)
            for row, boxes in enumerate(batch.boxes):
                inside = np.zeros(red.shape[1:], bool)
                for x0, y0, x1, y1 in np.round(boxes).astype(int):
                    inside[y0:y1, x0:x1] = True
                assert inside[red[row].numpy()].all()
                assert (batch.box_labels[row] == 1).all()
                for x, y, visibility in batch.keypoints[row].reshape(-1, 3):
                    green = batch.images[row, round(float(y)), round(float(x)), 1] > 200
                    assert bool(green) or not visibility


def test_mixup_of_masks_is_rejected_before_reading(tmp_path: Path) -> None:
    path = write_index(tmp_path, [drawn_scene("0.png", 0)])
    plan = Plan(index=path, mix={"kind": "MixUp"})
    with pytest.raises(PlanError, match="expected CutMix or none for an index with masks, got MixUp"):
        LocalEngine().feed(plan, View(augment=True))
    assert LocalEngine().feed(plan, View()).num_batches == 1
