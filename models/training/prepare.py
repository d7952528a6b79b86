"""Parts of a run: the network with what learns, the features of its frozen part, seeds."""

from __future__ import annotations

import numpy as np
import torch

from ...pipeline.errors import ModelError, PlanError
from ...pipeline.index.index import Index
from ...pipeline.jobs.contracts import Context
from ...pipeline.rng import derive_seed
from ...pipeline.text import first_few
from ..features.feature_cache import FOLDER, FeatureCache, Trunk
from ..zoo.freezing import blocks
from ..zoo.heads import AUXILIARY_INPUTS, auxiliary_head_names
from ..zoo.weights_report import WeightsReport, weights_report
from .distributed.context import DistributedContext
from .optimization.lora import add_lora
from .optimization.unfreezing import set_all_trainable
from .spec import TrainSpec


def build_trainable(spec: TrainSpec, num_outputs: int) -> torch.nn.Module:
    """Build the model on the CPU, with everything frozen that learns in no epoch.

    Raises:
        ModelError: the model, its weights or the block do not exist or do not fit.
    """
    model = spec.build_network(num_outputs, seed=torch_seed(spec, "init"))
    set_all_trainable(model, spec.stages)
    if getattr(spec.model, "auxiliary_heads", False):
        check_auxiliary_heads(model)
    if spec.lora is not None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(torch_seed(spec, "lora"))
            add_lora(model, spec.lora)
    return model


def check_auxiliary_heads(model: torch.nn.Module) -> None:
    """Check that a layer learns, in some epoch, from the loss of an auxiliary head.

    Raises:
        ModelError: all layers before the heads are frozen.
    """
    inputs = [AUXILIARY_INPUTS[name] for name in auxiliary_head_names(model)]
    learning = (p.requires_grad for name in inputs for p in model.get_submodule(name).parameters())
    if not any(learning):
        raise ModelError(
            f"auxiliary_heads: expected {inputs[-1]} or earlier blocks to learn, which their losses train, got frozen ones; "
            f"write fine_tune_from: {inputs[-1]}, all, or a stage of unfreeze from there, or remove auxiliary_heads"
        )


def check_device(spec: TrainSpec, device: torch.device) -> None:
    """Check that a job's options can be had on a device.

    Raises:
        PlanError: one cannot.
    """
    if spec.batch_norm == "sync" and device.type != "cuda":
        raise PlanError(
            "batch_norm: expected exact, local or frozen on a CPU, got sync, which is for GPUs; write batch_norm: exact"
        )


def open_features(
    spec: TrainSpec, index: Index, context: Context, dist: DistributedContext, trunk: Trunk
) -> FeatureCache:
    """Open the features of a trunk: in the plan's cache, else below a shared folder or the output folder if that is local."""
    folder = None if "://" in context.destination else context.out / FOLDER
    if context.shared is not None:
        folder = context.shared / FOLDER
    if spec.plan.cache is not None:
        folder = spec.plan.cache.dir
    dtype = None if spec.feature_dtype is None else np.dtype(spec.feature_dtype)
    return FeatureCache(trunk, spec.model.name, spec.plan, index, context, dist.device, dist, folder, dtype)


def initial_weights_report(model: torch.nn.Module) -> WeightsReport:
    """Return the model's weights report, with a note of random layers that are frozen."""
    report = weights_report(model)
    frozen = [
        name
        for name in report.untrained
        if not any(parameter.requires_grad for parameter in model.get_submodule(name).parameters())
    ]
    if not frozen:
        return report
    inside = tuple(f"{name}." for name in frozen)
    first = next((block for block in blocks(model) if block in frozen or block.startswith(inside)), "all")
    return report.with_note(f"random and frozen: {first_few(frozen)}; fine_tune_from: {first} trains them")


def torch_seed(spec: TrainSpec, purpose: str, epoch: int = 0, step: int = 0) -> int:
    """Derive a seed for torch's generator from (plan seed, epoch, step), for new heads and dropout."""
    return derive_seed(f"torch {purpose}", spec.plan.seed, epoch, str(step)) & (2**63 - 1)
