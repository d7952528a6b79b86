"""A small network that has learned a planted mark: a white square in the upper left corner of one class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lightwell import LocalEngine, ModelSpec, Plan, View, build_index, build_model
from lightwell.models.training.checkpoint import CheckpointMetadata, save_checkpoint
from pictures import make_picture, write_picture

CLASSES = ("marked", "plain")
MARK = 8
"""Side of the mark in pixels; images have 32."""


def marked_plan(root: Path, num_images: int = 32) -> Plan:
    """Write images of two classes that differ by the mark only; returns a plan that reads them."""
    for number in range(num_images):
        picture = make_picture(number, height=32, width=32) // 2
        if number % 2 == 0:
            picture[:MARK, :MARK] = 255
        write_picture(root / "photos" / CLASSES[number % 2] / f"{number:03}.png", picture)
    index = root / "index.parquet"
    build_index(root / "photos", fractions={"test": 1.0}).save(index)
    normalize = {"Normalize": {"mean": [0.3, 0.3, 0.3], "std": [0.2, 0.2, 0.2]}}
    return Plan.model_validate({"index": index, "preprocess": [normalize], "batch": {"size": 16}})


def train_on_mark(plan: Plan, path: Path) -> Path:
    """Train a few steps on all images and write the checkpoint."""
    spec = ModelSpec(name="timm:test_resnet", weights="none", num_classes=2)
    model = build_model(spec, seed=0, warn=False)
    with LocalEngine(num_threads=1).feed(plan, View(split="test", num_epochs=15, shuffle=True)) as feed:
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for images, labels in feed:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    metadata = CheckpointMetadata(spec, CLASSES, "0", {}, ({"loss": 0.1},))
    save_checkpoint(path, model, metadata)
    return path


def corner(row: int, column: int) -> np.ndarray:
    """Return the weights of a quarter of the side of a corner, on a 4 x 4 grid."""
    weights = np.zeros((4, 4), np.float32)
    weights[row, column] = 1
    return weights
