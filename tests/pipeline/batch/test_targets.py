"""Batches converted to the targets of torchvision's detection models."""

from __future__ import annotations

from pathlib import Path

import albumentations as A
import pytest
import torch
from annotated import drawn_scene, plain_scene, read, write_index
from lightwell.pipeline.errors import RunError


def test_targets_train_a_detection_model_of_torchvision(tmp_path: Path) -> None:
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    scenes = [
        drawn_scene("0.png", 0),
        plain_scene("1.png", size=(120, 160), boxes=[], box_labels=[]),
        drawn_scene("2.png", 2),
    ]
    path = write_index(tmp_path, scenes)
    ((batch,), _) = read(path, preprocess=[A.Resize(96, 128), A.Normalize()])
    model = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=96, max_size=128
    )
    losses = model(list(batch.images), batch.targets())
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    first, empty, _ = batch.targets()
    assert first["labels"].tolist() == [2]  # class 1 behind the background
    assert first["keypoints"].shape == (1, 1, 3)
    assert {name: tuple(value.shape) for name, value in empty.items()} == {
        "boxes": (0, 4),
        "labels": (0,),
        "keypoints": (0, 1, 3),
    }
    assert batch.targets(first_label=0)[0]["labels"].tolist() == [1]


def test_targets_leave_boxes_of_unknown_class_out_and_need_boxes(tmp_path: Path) -> None:
    boxes = [[1, 2, 11, 12], [5, 5, 20, 20]]
    path = write_index(tmp_path, [plain_scene("0.png", boxes=boxes, box_labels=[-1, 0])])
    ((batch,), _) = read(path)
    (target,) = batch.targets()
    assert target["labels"].tolist() == [1]
    assert torch.allclose(target["boxes"], torch.tensor([[5.0, 5, 20, 20]]), atol=1e-4)
    (tmp_path / "plain").mkdir()
    ((batch,), _) = read(write_index(tmp_path / "plain", [plain_scene("0.png")]))
    with pytest.raises(RunError, match="expected boxes in the index"):
        batch.targets()
