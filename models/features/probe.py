"""Probe job: which simple classifier of a frozen network's features is best.

A job file::

    job: probe
    plan: plan.yaml
    model: {name: tf_efficientnet_lite0, weights: default}
    blocks: [blocks.5]          # also probe the averaged outputs of these blocks

``lightwell train probe.yaml --out DIR`` computes the features once, or finds them in the cache, and fits nearest neighbours,
logistic regressions and a grid of linear heads (as the linear evaluation of DINOv2 and DINOv3: every rate, weight decay and
block in one pass over the features). The best on the validation split is tested once. ``result.json`` has all of them;
``best.safetensors`` is the network with the best head that can stand in its place, for audits, predictions and fine-tuning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ...pipeline.config.checked_model import CheckedModel
from ...pipeline.plan.plan import Plan
from ...pipeline.plan.view import View
from ..training.job import Classify
from ..zoo.build import ModelSpec

if TYPE_CHECKING:
    from ...pipeline.jobs.contracts import Context, Feed


class KNNOptions(CheckedModel):
    """Nearest neighbours; the defaults are DINO's (Caron et al., ICCV 2021)."""

    k: int = Field(default=20, ge=1)
    temperature: float = Field(default=0.07, gt=0)


class GridOptions(CheckedModel):
    """Linear heads that are trained together with SGD and a cosine schedule."""

    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    weight_decays: tuple[float, ...] = (0.0, 1e-4, 1e-2)
    epochs: int = Field(default=100, ge=1)
    batch_size: int = Field(default=256, ge=1)


class ProbeFeatures(CheckedModel):
    """Fit simple classifiers to the features of a frozen network."""

    plan: Plan
    model: ModelSpec
    blocks: tuple[str, ...] = ()
    """Blocks whose averaged outputs are probed too, beside the input of the head."""
    feature_passes: int = Field(default=0, ge=0)
    """Number of differently augmented passes over the training images; 0 takes them as in evaluation."""
    knn: KNNOptions | None = KNNOptions()
    logistic: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0)
    """Inverse strengths of the L2 penalty of logistic regressions."""
    grid: GridOptions | None = GridOptions()
    monitor: Literal["loss", "accuracy", "balanced_accuracy", "auroc"] = "accuracy"
    """Validation metric that selects the best; ties are resolved by the lower loss."""
    train_split: str = "train"
    validation_split: str = "val"
    test_split: str | None = "test"
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def view(self) -> View:
        """View of the training split in order."""
        return View(split=self.train_split)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output files."""
        from .probe_run import BEST_NAME, RESULT_NAME

        return BEST_NAME, RESULT_NAME

    @property
    def head_only(self) -> Classify:
        """The job that trains a head of the same network on the same features."""
        names = ("plan", "model", "feature_passes", "train_split", "validation_split", "test_split", "device")
        return Classify(**{name: getattr(self, name) for name in names}, monitor=self.monitor)

    def check_request(self, *, trains_here: bool) -> None:
        """Check index, model, weights, blocks and image size.

        Raises:
            PlanError: the index does not fit the job.
            ModelError: the model or its weights cannot be used.
        """
        from ..training.prepare import build_trainable
        from .pooled_blocks import check_blocks

        spec = self.head_only
        spec.check_request(trains_here=trains_here)
        check_blocks(build_trainable(spec, len(spec.check().classes)), self.blocks)

    def run(self, feed: Feed, context: Context) -> Mapping[str, Any]:  # noqa: ARG002  (features read their own feeds)
        """Fit the probes, choose one by validation, test it, and save it.

        Raises:
            ModelError: the network cannot be loaded, or does not end in a linear head.
            PlanError: a transform depends on annotations.
        """
        from .probe_run import run_probes

        return run_probes(self, context)
