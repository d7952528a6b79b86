"""A model with all that an update of its weights changes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from ...features.split_model import SplitModel, split_model
from ..checkpoint import CheckpointMetadata, Progress, load_optimizer, load_weights, save_checkpoint
from ..distributed.context import DistributedContext
from ..optimization.ema import AveragedWeights
from ..optimization.update_state import load_update_state, update_state
from ..prepare import build_trainable
from ..spec import TrainSpec


@dataclass(frozen=True)
class Learner:
    """A model with its optimizer, and the state that updates keep beside them."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    """Every parameter group has ``base_lr``, its peak learning rate."""
    average: AveragedWeights | None = None
    """Average of the weights, if the job asks for one."""
    scaler: torch.amp.GradScaler | None = None
    """Scale of the loss, for float16."""
    split: SplitModel | None = None
    """The model as a frozen part and the rest, with ``feature_passes``."""

    @classmethod
    def build(
        cls, spec: TrainSpec, num_outputs: int, dist: DistributedContext, checkpoint: Path | None
    ) -> Learner:
        """Build the model and its optimizer on the device of the ranks.

        Args:
            spec: the job.
            num_outputs: of the model.
            dist: ranks that train it.
            checkpoint: of an earlier run, to continue from.

        Raises:
            ModelError: the model, its weights or the checkpoint cannot be used.
        """
        model = build_trainable(spec, num_outputs)
        model = model.to(dist.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        model = model.to(torch.float64 if spec.precision == "float64" else torch.float32)
        if spec.batch_norm == "sync" and dist.num_ranks > 1:
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        optimizer = spec.optimizer.build_for(model, spec.head_layers(model))
        if checkpoint is not None:
            load_weights(checkpoint, model)
            load_optimizer(checkpoint, optimizer)
        average = None if spec.ema is None else AveragedWeights(model, spec.ema)
        scaler = torch.amp.GradScaler(dist.device.type) if spec.precision == "float16" else None
        if checkpoint is not None:
            load_update_state(checkpoint, average, scaler)
        split = None if spec.feature_passes is None else split_model(model)
        return cls(model, optimizer, average, scaler, split)

    @property
    def module(self) -> torch.nn.Module:
        """The module that takes the batches: the model, or its part behind the frozen one."""
        return self.model if self.split is None else self.split.rest

    def averaged(self) -> AbstractContextManager[None]:
        """Give the model its averaged weights within the context, if there are any."""
        return nullcontext() if self.average is None else self.average.applied()

    def save(self, path: Path, metadata: CheckpointMetadata, progress: Progress) -> None:
        """Write a checkpoint to continue from."""
        state = update_state(self.average, self.scaler)
        save_checkpoint(path, self.model, metadata, self.optimizer, progress, state)
