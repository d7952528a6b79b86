"""Steps of fine-tuning a whole ResNet-18, fed by Lightwell, by torch's DataLoader, or from memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat

import torch
from lightwell import ModelSpec
from lightwell.models.training.evaluation import EpochMetrics
from lightwell.models.training.step import TrainStep
from lightwell.models.training.tasks.classification import ClassificationMetrics, CrossEntropy
from lightwell.models.training.train_batch import TrainBatch
from lightwell.models.zoo.build import build_model

from benchmarks.benchmark import NUM_WORKERS, SIDE, Work
from benchmarks.contestants import ours as our_feed
from benchmarks.contestants import torch_loader

NETWORK = ModelSpec(name="resnet18", weights="none", num_classes=2)
WARM_STEPS = 3


@dataclass(frozen=True)
class Pace:
    """Speed of some work on batches."""

    images_per_s: float
    cpu_ms: float
    """Milliseconds of processor time of this process for each image."""


def ours(work: Work) -> float:
    """Images a second fed by Lightwell."""
    return steps(work, our_feed.feed(work)).images_per_s


def torchvision(work: Work) -> float:
    """Images a second fed by the DataLoader with torchvision's decoder and transforms."""
    return steps(work, torch_loader.torchvision_io(work)).images_per_s


def in_memory(work: Work) -> float:
    """Images a second on one tensor."""
    return steps(work, one_tensor(work)).images_per_s


def ours_cpu(work: Work) -> float:
    """Processor time for each image fed by Lightwell."""
    return steps(work, our_feed.feed(work)).cpu_ms


def parts_cpu(work: Work) -> float:
    """Processor time for each image of a step on one tensor, and of Lightwell's feed without steps, added."""
    half = replace(work, seconds=work.seconds / 2)
    feed_alone = pace(half, our_feed.feed(work), lambda _: None)
    return steps(half, one_tensor(work)).cpu_ms + feed_alone.cpu_ms


def one_tensor(work: Work) -> Iterator[torch.Tensor]:
    """Yield the same random batch for ever."""
    generator = torch.Generator().manual_seed(0)
    return repeat(torch.rand(work.batch_size, 3, SIDE, SIDE, generator=generator))


def steps(work: Work, batches: Iterator[torch.Tensor]) -> Pace:
    """Measure optimization steps."""
    torch.set_num_threads(NUM_WORKERS)
    model = build_model(NETWORK).to(memory_format=torch.channels_last)
    model.requires_grad_(True).train()
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "base_lr": 1e-3}], lr=1e-3)
    step = TrainStep(model, optimizer, CrossEntropy())
    running = EpochMetrics(ClassificationMetrics(2))
    labels = torch.arange(work.batch_size) % 2
    return pace(work, batches, lambda images: step(_labelled(images, labels), running, factor=1.0))


def pace(work: Work, batches: Iterator[torch.Tensor], use: Callable[[torch.Tensor], object]) -> Pace:
    """Use full batches and divide time by images, after a few to warm up."""
    num_used, started, cpu_started = 0, 0.0, 0.0
    for images in batches:
        if len(images) < work.batch_size:
            continue
        use(images)
        num_used += 1
        if num_used == WARM_STEPS:
            started, cpu_started = time.perf_counter(), time.process_time()
        elif num_used > WARM_STEPS and (taken := time.perf_counter() - started) >= work.seconds:
            num_images = (num_used - WARM_STEPS) * work.batch_size
            return Pace(num_images / taken, 1000 * (time.process_time() - cpu_started) / num_images)
    raise AssertionError("the batches ended")


def _labelled(images: torch.Tensor, labels: torch.Tensor) -> TrainBatch:
    inputs = images.contiguous(memory_format=torch.channels_last)
    return TrainBatch(inputs, labels, torch.zeros(len(labels), dtype=torch.bool))
