"""Stage that compares the inputs of a network's batch normalization on a dataset with those of its training.

Batch normalization keeps the mean and variance of its input over the training data, by channel. They describe these data without
any image of them (AdaBN, Li et al., "Revisiting batch normalization for practical domain adaptation", 2016; DeepInversion, Yin et
al., 2020, equation 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ....pipeline.jobs.fingerprint import fingerprint_of
from ....pipeline.jobs.stages import Batches, Inputs, Process, Source
from ....pipeline.plan.view import View
from .effects.effect_stage import sampled_keys
from .feature_plan import feature_stages
from .records import RECORDS

if TYPE_CHECKING:
    from torch import nn

    from ....pipeline.batch.batch import Batch
    from ...features.embed import FeatureStage
    from .job import DatasetAudit

DOMAIN = "domain"
DOMAIN_VERSION = 2
"""To be increased when a measure gives other values than before."""
MAX_IMAGES = 512
"""Images that are compared; the statistic hardly changes with more."""
DOMAIN_SCHEMA = pa.schema(
    {
        "layer": pa.string(),
        "num_images": pa.int64(),
        "sums": pa.list_(pa.float64()),
        "squares": pa.list_(pa.float64()),
    }
)
"""One row per batch and layer: sums over its images of the mean and the mean square of each channel, in standard deviations of the
training data from their mean."""


@dataclass(frozen=True)
class DomainStage:
    """Inputs of the normalization layers on a sample of the images."""

    features: FeatureStage

    name = DOMAIN
    needs = (RECORDS,)
    schema = DOMAIN_SCHEMA

    def fingerprint(self) -> str:
        """Hash network, plan, sample and version."""
        return fingerprint_of([DOMAIN_VERSION, MAX_IMAGES, self.features.fingerprint()])

    def source(self, inputs: Inputs) -> Source:
        """Return a sample of the readable images."""
        job = self.features.job
        records = inputs[RECORDS].filter(pc.is_null(inputs[RECORDS]["problem"]))
        keys = sampled_keys(records["key"].to_pylist(), job.plan.seed, MAX_IMAGES)
        return Batches(job.plan, View(split=job.split, keys=keys))

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:  # noqa: ARG002
        """Load the network; yields the function that sums up the inputs of its layers.

        Raises:
            ModelError: the network cannot be loaded, does not accept the plan's images, or there is no such device.
        """
        import torch

        from ...training.evaluation import parameter_dtype
        from ...zoo.device import torch_device
        from ...zoo.forward import model_inputs, run_model

        job = self.features.job
        device = torch_device(job.device)
        model = job.load().to(device)
        layers = normalization_layers(model)
        with ExitStack() as stack:
            seen: list[tuple[str, torch.Tensor]] = []
            for name, layer in layers.items():
                handle = layer.register_forward_pre_hook(partial(_record, seen, name))
                stack.callback(handle.remove)

            def process(batch: Batch) -> pa.RecordBatch:
                used = torch.from_numpy(batch.is_valid)
                with torch.inference_mode():
                    if layers and used.any():
                        run_model(model, model_inputs(batch.images[used], device).to(parameter_dtype(model)))
                rows = [_row(name, moments) for name, moments in seen]
                seen.clear()
                return pa.RecordBatch.from_pylist(rows, schema=DOMAIN_SCHEMA)

            yield process


def domain_stages(audit: DatasetAudit) -> tuple[DomainStage, ...]:
    """Return the stage; none without a network."""
    return tuple(DomainStage(features) for features in feature_stages(audit))


def normalization_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the batch normalization layers with running statistics, by name."""
    from torch.nn.modules.batchnorm import _BatchNorm

    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    }


def _record(seen: list[tuple[str, Any]], name: str, layer: Any, arguments: tuple[Any, ...]) -> None:
    """Keep the means of images and of their squares, (2, N, C), of a layer's input (N, C, ...)."""
    import torch

    values = arguments[0].detach().float()
    shape = (1, -1, *(1,) * (values.ndim - 2))
    scale = (layer.running_var + layer.eps).rsqrt()
    values = (values - layer.running_mean.view(shape)) * scale.view(shape)
    flat = values.flatten(2) if values.ndim > 2 else values[..., None]
    squares = (
        flat.square().mean(dim=2) + layer.eps * scale.square()
    )  # the layer adds it to variances of training
    seen.append((name, torch.stack([flat.mean(dim=2), squares]).double().cpu()))


def _row(name: str, moments: Any) -> dict[str, Any]:
    sums, squares = moments.sum(dim=1).tolist()
    return {"layer": name, "num_images": moments.shape[1], "sums": sums, "squares": squares}
