"""Checkpoints of small networks, as a training writes them, without the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightwell import ModelSpec, Plan, build_model
from lightwell.models.training.checkpoint import CheckpointMetadata, save_checkpoint
from lightwell.models.training.saved_plan import SavedPlan
from lightwell.models.zoo.segmentation import SegmentationSpec, build_segmentation_model

SPEC = ModelSpec(name="timm:test_resnet", weights="none", num_classes=2)
CLASSES = ("cat", "dog")
RESIZE_AND_CROP = {
    "preprocess": [{"SmallestMaxSize": {"max_size": 40}}],
    "evaluate": [
        {"CenterCrop": {"height": 32, "width": 32}},
        {"Normalize": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25]}},
    ],
    "augment": [
        {"RandomCrop": {"height": 32, "width": 32}},
        {"Normalize": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25]}},
    ],
}
"""Sections of a plan."""


def save_trained(path: Path, plan: Plan, *, classes: tuple[str, ...] = CLASSES, **facts: Any) -> Path:
    """Write a checkpoint of a network whose probabilities are spread over 0..1."""
    spec = SPEC.model_copy(update={"num_classes": len(classes)})
    model = build_model(spec, seed=1, warn=False)
    with torch.no_grad():
        model.fc.weight.mul_(30)
    history = ({"loss": 0.5, "auroc": 0.9},)
    metadata = CheckpointMetadata(spec, classes, "f" * 16, {}, history, plan=SavedPlan.of(plan), **facts)
    save_checkpoint(path, model, metadata)
    return path


def save_segmenter(path: Path, plan: Plan, **facts: Any) -> Path:
    """Write a checkpoint of a random U-Net that predicts each of two classes for about half of a picture's pixels."""
    spec = SegmentationSpec(name="unet", width=2, num_classes=2)
    model = build_segmentation_model(spec, 2, seed=1)
    with torch.no_grad():
        noise = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        scores = model(noise)
        model.head.bias[1] -= (scores[:, 1] - scores[:, 0]).median()
    metadata = CheckpointMetadata(
        spec,
        ("ground", "disc"),
        "f" * 16,
        {"void": [7], "loss.cross_entropy": 1.0, "loss.dice": 0.5},
        ({"loss": 0.5, "miou": 0.5},),
        task="segment",
        plan=SavedPlan.of(plan),
        **facts,
    )
    save_checkpoint(path, model, metadata)
    return path
