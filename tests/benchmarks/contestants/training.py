"""Steps of fine-tuning a whole ResNet-18, fed by Lightwell, by torch's DataLoader, or from memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
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


def ours(work: Work) -> float:
    """Images a second fed by Lightwell."""
    return images_per_second(work, our_feed.feed(work))


def torchvision(work: Work) -> float:
    """Images a second fed by the DataLoader with torchvision's decoder and transforms."""
    return images_per_second(work, torch_loader.torchvision_io(work))


def in_memory(work: Work) -> float:
    """Images a second on one tensor."""
    images = torch.rand(work.batch_size, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return images_per_second(work, repeat(images))


def images_per_second(work: Work, batches: Iterator[torch.Tensor]) -> float:
    """Run optimization steps on full batches and divide images by time, after a few steps to warm up."""
    torch.set_num_threads(NUM_WORKERS)
    model = build_model(NETWORK).to(memory_format=torch.channels_last)
    model.requires_grad_(True).train()
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "base_lr": 1e-3}], lr=1e-3)
    step = TrainStep(model, optimizer, CrossEntropy())
    running = EpochMetrics(ClassificationMetrics(2))
    labels = torch.arange(work.batch_size) % 2
    num_steps, started = 0, 0.0
    for images in batches:
        if len(images) < work.batch_size:
            continue
        step(_labelled(images, labels), running, factor=1.0)
        num_steps += 1
        if num_steps == WARM_STEPS:
            started = time.perf_counter()
        elif num_steps > WARM_STEPS and (taken := time.perf_counter() - started) >= work.seconds:
            return (num_steps - WARM_STEPS) * work.batch_size / taken
    raise AssertionError("the batches ended")


def _labelled(images: torch.Tensor, labels: torch.Tensor) -> TrainBatch:
    inputs = images.contiguous(memory_format=torch.channels_last)
    return TrainBatch(inputs, labels, torch.zeros(len(labels), dtype=torch.bool))
