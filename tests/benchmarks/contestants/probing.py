"""Ten epochs of a head on a frozen network: Lightwell with cached features, one plain pass, and a loop as usually written."""

from __future__ import annotations

import importlib
import math
import time
from itertools import cycle, islice
from pathlib import Path
from tempfile import mkdtemp

import torch
from lightwell import Classify, LocalEngine, ModelSpec, Plan, View, build_index
from lightwell.models.training.train_batch import to_train_batch
from lightwell.models.zoo.build import build_model
from lightwell.models.zoo.heads import head_module
from lightwell.workers.local import run_training_job
from torch.utils.data import DataLoader, Dataset

from benchmarks.benchmark import NUM_WORKERS, SIDE, Work
from benchmarks.crops import MEAN, STD

EPOCHS = 10
NETWORK = ModelSpec(name="tf_efficientnet_lite0", weights="none", num_classes=2)
NUM_VALIDATION = 4
PHOTOS_PER_SECOND = 150
"""So many photos are used for each measured second, which keeps the usual way within minutes."""


def some_photos(work: Work) -> list[str]:
    """Return the photos that are used, repeated if there are fewer."""
    wanted = max(32, round(work.seconds * PHOTOS_PER_SECOND))
    return list(islice(cycle(work.photos), wanted))


def plan_of(work: Work, folder: Path) -> Plan:
    """Index the photos under two made-up classes; a few more validate."""
    for number, photo in enumerate(some_photos(work)):
        split = ("train", "val")[number < NUM_VALIDATION]
        for name in dict.fromkeys((split, "train")):
            link = folder / "photos" / name / "ab"[number % 2] / f"{number:06}{Path(photo).suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(photo)
    build_index(folder / "photos").save(folder / "index.parquet")
    return Plan.model_validate(
        {
            "index": folder / "index.parquet",
            "preprocess": [
                {"Resize": {"height": SIDE, "width": SIDE}},
                {"Normalize": {"mean": list(MEAN), "std": list(STD)}},
            ],
            "batch": {"size": work.batch_size},
        }
    )


def ours(work: Work) -> float:
    """Seconds of ten epochs, from the photos to the saved head, with no features kept from before."""
    folder = Path(mkdtemp(dir=work.scratch))
    plan = plan_of(work, folder)
    torch.set_num_threads(NUM_WORKERS)
    importlib.import_module("sklearn.metrics")  # before the clock starts, as the libraries of the others
    job = Classify(
        plan=plan,
        model=NETWORK.model_copy(update={"num_classes": None}),
        feature_passes=0,
        epochs=EPOCHS,
        test_split=None,
    )
    started = time.perf_counter()
    run_training_job(job, LocalEngine(num_threads=NUM_WORKERS), folder / "out")
    return time.perf_counter() - started


def one_pass(work: Work) -> float:
    """Seconds of one forward pass of the network over the same photos, fed by Lightwell."""
    plan = plan_of(work, Path(mkdtemp(dir=work.scratch)))
    torch.set_num_threads(NUM_WORKERS)
    started = time.perf_counter()
    model = build_model(NETWORK).to(memory_format=torch.channels_last)
    total = 0.0
    with torch.inference_mode(), LocalEngine(num_threads=NUM_WORKERS).feed(plan, View(split="train")) as feed:
        for batch in feed:
            total += float(model(to_train_batch(batch, torch.device("cpu")).inputs).sum())
    assert math.isfinite(total)
    return time.perf_counter() - started


class Labelled(Dataset[tuple[torch.Tensor, int]]):
    """Photos decoded by torchvision, with made-up labels."""

    def __init__(self, paths: list[str]) -> None:
        from torchvision.transforms import v2

        self.paths = paths
        self.steps = v2.Compose(
            [
                v2.Resize((SIDE, SIDE), antialias=True),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        from torchvision.io import ImageReadMode, decode_image

        return self.steps(decode_image(self.paths[number], mode=ImageReadMode.RGB)), number % 2


def usual_way(work: Work) -> float:
    """Seconds of ten epochs of a head on a frozen network, the photos decoded and the network run in each."""
    torch.set_num_threads(NUM_WORKERS)
    photos = some_photos(work)
    started = time.perf_counter()
    model = build_model(NETWORK).to(memory_format=torch.channels_last)
    model.requires_grad_(False)
    head = head_module(model)[1].requires_grad_(True)
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3)
    loader = DataLoader(
        Labelled(photos),
        batch_size=work.batch_size,
        shuffle=True,
        num_workers=NUM_WORKERS,
        persistent_workers=True,
    )
    for _ in range(EPOCHS):
        for images, labels in loader:
            loss = torch.nn.functional.cross_entropy(
                model(images.contiguous(memory_format=torch.channels_last)), labels
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - started
