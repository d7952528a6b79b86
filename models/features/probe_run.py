"""Runs a probe job: features by block, all probes, the best of them as a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...pipeline.atomic_io import write_json
from ..training.checkpoint import CheckpointMetadata, save_checkpoint
from ..training.distributed.context import DistributedContext
from ..training.metrics import Metrics, compute_metrics
from ..training.prepare import build_trainable, initial_weights_report, open_features
from ..zoo.device import torch_device
from ..zoo.heads import head_module
from ..zoo.plan_checks import output_shape
from .pooled_blocks import HEAD_INPUT, PooledBlocks
from .probe_heads import Grid, LinearHead, Neighbours, Probe, logistic_heads

if TYPE_CHECKING:
    from ...pipeline.jobs.contracts import Context
    from .probe import ProbeFeatures

BEST_NAME, RESULT_NAME = "best.safetensors", "result.json"


def run_probes(job: ProbeFeatures, context: Context) -> Mapping[str, Any]:
    """Fit the probes, choose one by validation, test it, and save it; see ``ProbeFeatures.run``."""
    probing = _Probing(job, context)
    rows = []
    validation, labels = probing.split(job.validation_split)
    for block, probe in probing.probes():
        log_probabilities = probe.log_probabilities(validation[block])
        metrics = compute_metrics(log_probabilities, labels)
        loss = -float(log_probabilities[range(len(labels)), labels].mean())
        rows.append(_Row(block, probe, metrics, loss))
    best = max(rows, key=lambda row: row.rank(job.monitor))
    heads = [row for row in rows if row.is_head]
    saved = max(heads, key=lambda row: row.rank(job.monitor)) if heads else None
    if saved is not None and not probing.save(saved):
        saved = None
    for line in _table(rows, job.monitor):
        context.console.print(line)
    result: dict[str, Any] = {
        "monitor": job.monitor,
        "best": best.as_dict(),
        "test": None,
        "checkpoint": None if saved is None else f"{context.destination or context.out}/{BEST_NAME}",
        "saved": None if saved is None else saved.as_dict(),
        "probes": [row.as_dict() for row in rows],
    }
    if job.test_split is not None:
        tests, labels = probing.split(job.test_split)
        tested = compute_metrics(best.probe.log_probabilities(tests[best.block]), labels)
        result["test"] = {**tested.as_dict(), "confusion": tested.confusion.tolist()}
        context.console.print(f"test, {best.name}: accuracy {tested.accuracy:.4f}")
    if saved is None:
        context.console.print(
            f"no {BEST_NAME}: no head of these probes can stand in place of the network's own"
        )
    write_json(context.out / RESULT_NAME, result)
    context.publish()
    return result


@dataclass(frozen=True)
class _Row:
    """A probe and how it does on the validation split."""

    block: str
    probe: Probe
    metrics: Metrics
    loss: float

    @property
    def name(self) -> str:
        """Method and block, with the options of the method."""
        options = ", ".join(f"{name} {value:g}" for name, value in self.probe.options.items())
        return f"{self.probe.method} of {self.block} ({options})"

    @property
    def is_head(self) -> bool:
        """Whether it can stand in place of the network's head."""
        return self.block == HEAD_INPUT and isinstance(self.probe, LinearHead)

    def rank(self, monitor: str) -> tuple[float, float]:
        """Return values whose order is that of quality."""
        value = None if monitor == "loss" else getattr(self.metrics, monitor)
        return (-self.loss if value is None else float(value), -self.loss)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the weights as JSON types."""
        options = {"method": self.probe.method, "block": self.block, **self.probe.options}
        return {**options, "validation": {"loss": self.loss, **self.metrics.as_dict()}}


def _table(rows: list[_Row], monitor: str) -> Iterator[str]:
    """Yield a line for the best of each method and block."""
    groups: dict[tuple[str, str], _Row] = {}
    for row in rows:
        key = row.probe.method, row.block
        if key not in groups or row.rank(monitor) > groups[key].rank(monitor):
            groups[key] = row
    for row in sorted(groups.values(), key=lambda row: row.rank(monitor), reverse=True):
        yield f"validation accuracy {row.metrics.accuracy:.4f}, loss {row.loss:.4f}: {row.name}"


class _Probing:
    """Features of the splits, by block, and the network that they are of."""

    def __init__(self, job: ProbeFeatures, context: Context) -> None:

        self._job, self._context = job, context
        self._spec = job.head_only
        task, device = self._spec.check(), torch_device(self._spec.device)
        self._classes = task.classes
        model: Any = build_trainable(self._spec, len(task.classes))
        self._model: torch.nn.Module = model.to(device, memory_format=torch.channels_last)
        self._trunk = PooledBlocks(self._model, job.blocks)
        dist = DistributedContext(device=device)
        self._cache = open_features(self._spec, job.plan.load_index(), context, dist, self._trunk)
        shape = output_shape(job.plan) or (3, 224, 224)
        self._example = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(device)
        self._found: dict[str, tuple[dict[str, np.ndarray], np.ndarray]] = {}

    def split(self, split: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return the features of the labelled images of a split, float64 by block, and their labels."""
        if split not in self._found:
            num_passes = self._job.feature_passes if split == self._job.train_split else 0
            passes = [self._cache.open(split, number) for number in range(num_passes)] or [
                self._cache.open(split)
            ]
            parts = [one.labelled() for one in passes]
            columns = np.concatenate([features for features, _ in parts]).astype(np.float64)
            widths = {name: part.shape[1] for name, part in self._trunk.parts(self._example).items()}
            edges = np.cumsum([0, *widths.values()])
            by_block = {
                name: columns[:, first:last]
                for name, first, last in zip(widths, edges[:-1], edges[1:], strict=True)
            }
            self._found[split] = by_block, np.concatenate([labels for _, labels in parts])
        return self._found[split]

    def probes(self) -> Iterator[tuple[str, Probe]]:
        """Fit all probes to the training split; yields them with their block."""
        job = self._job
        by_block, labels = self.split(job.train_split)
        count = len(self._classes)
        for block, features in by_block.items():
            if job.knn is not None:
                yield block, Neighbours(features, labels, count, job.knn.k, job.knn.temperature)
            for head in logistic_heads(features, labels, count, job.logistic):
                yield block, head
            if job.grid is not None:
                grid = Grid(**job.grid.model_dump(), seed=job.plan.seed, device=self._cache.device)
                for head in grid.heads(features, labels, count):
                    yield block, head

    def save(self, row: _Row) -> bool:
        """Put a head into the network and save it; returns whether the network ends in its head, so that this is possible."""
        assert isinstance(row.probe, LinearHead)
        head: Any = head_module(self._model)[1]
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(row.probe.weight).reshape(head.weight.shape))
            if head.bias is None:
                return False
            head.bias.copy_(torch.from_numpy(row.probe.bias))
        if not self._trunk.ends_in_head(self._example):
            return False
        validation = row.as_dict()["validation"]
        metadata = CheckpointMetadata(
            self._spec.saved_model(self._model, len(self._classes)),
            self._classes,
            self._job.plan.fingerprint(),
            {
                **self._spec.result_config(),
                **{f"probe.{name}": value for name, value in row.probe.options.items()},
            },
            (validation,),
            initial_weights_report(self._model),
        )
        save_checkpoint(self._context.out / BEST_NAME, self._model, metadata)
        return True
