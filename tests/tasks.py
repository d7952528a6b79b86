"""Small made sets for training: pictures with several labels, and pictures with masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from lightwell.pipeline.index.build import build_index
from PIL import Image

CHANNELS = ("blue", "green", "red")
"""Classes of ``multilabel_set``, sorted as in the index."""
SIDE = 32


def multilabel_set(folder: Path, *, num_train: int = 18, num_other: int = 8) -> Path:
    """Write pictures whose colour channels are bright or dark: a label for each bright one. One picture has no label."""
    rng = np.random.default_rng(4)
    rows = ["path,label,split"]
    for split, count in (("train", num_train), ("val", num_other), ("test", num_other)):
        for number in range(count):
            bright = (
                np.array([(number + 1) >> bit & 1 for bit in range(3)])
                if (number + 1) % 8
                else np.ones(3, int)
            )
            image = rng.normal(60 + 120 * bright[::-1], 25, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
            name = f"{split}-{number}.png"
            Image.fromarray(image).save(folder / name)
            labels = "|".join(one for one, is_in in zip(CHANNELS, bright, strict=True) if is_in)
            rows.append(f"{name},{'' if (split, number) == ('train', 3) else labels},{split}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    build_index(folder / "table.csv").save(folder / "index.parquet")
    return folder / "index.parquet"


def mask_set(folder: Path, *, num_train: int = 10, num_other: int = 4, side: int = SIDE) -> Path:
    """Write noisy pictures of a bright disc (1) on dark ground (0), with a column of void (7); one has no mask."""
    rng = np.random.default_rng(5)
    rows = ["path,split,mask"]
    ys, xs = np.mgrid[:side, :side]
    for split, count in (("train", num_train), ("val", num_other), ("test", num_other)):
        for number in range(count):
            x, y, radius = *rng.integers(8, side - 8, 2).tolist(), int(rng.integers(5, 9))
            mask = (((xs - x) ** 2 + (ys - y) ** 2) < radius**2).astype(np.uint8)
            image = rng.normal(70 + 110 * mask[..., None], 20, (side, side, 3)).clip(0, 255).astype(np.uint8)
            mask[:, number % 4] = 7
            name = f"{split}-{number}.png"
            Image.fromarray(image).save(folder / name)
            Image.fromarray(mask).save(folder / f"mask-{name}")
            rows.append(f"{name},{split},{'' if (split, number) == ('train', 2) else f'mask-{name}'}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    build_index(folder / "table.csv").save(folder / "index.parquet")
    return folder / "index.parquet"


JOBS: dict[str, dict[str, Any]] = {
    "multilabel": {
        "job": "multilabel",
        "model": {"name": "timm:test_resnet", "weights": "none"},
        "fine_tune_from": "all",
        "positive_weights": "balanced",
        "label_smoothing": 0.1,
        "ema": {"decay": 0.9},
        "plan": {"mix": {"kind": "MixUp"}},
    },
    "segment": {
        "job": "segment",
        "model": {"name": "unet", "width": 2},
        "classes": ["ground", "disc"],
        "void": 7,
        "accumulate": 2,
        "ema": {"decay": 0.9},
        "plan": {"mix": {"kind": "CutMix"}},
    },
}
"""A small job of each task, with mixed images, dropout, averaged weights and accumulated gradients."""


def write_job(folder: Path, name: str, **changes: Any) -> Path:
    """Write a job of ``JOBS`` on the ``index.parquet`` in a folder."""
    content: dict[str, Any] = {
        "epochs": 2,
        "optimizer": {"name": "adamw", "lr": 0.01},
        "checkpoint_every": {"steps": 2},
        **JOBS[name],
        **changes,
    }
    content["plan"] = {
        "index": "index.parquet",
        "augment": ["HorizontalFlip"],
        "batch": {"size": 4},
        "errors": {"max_bad_share": 0.5},
        **JOBS[name]["plan"],
        **changes.get("plan", {}),
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
