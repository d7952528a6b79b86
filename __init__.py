"""Lightwell: image pipelines with Albumentations, DALI and Ray, for training, inference and Grad-CAM audits.

Public names are imported on first use: ``import lightwell`` itself imports neither torch, ray, DALI nor
Albumentations.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cli.submission import submit
    from .models.audits.gradcam.job import GradCamAudit
    from .models.explain.grad_cam import find_target_layer, grad_cam
    from .models.explain.one_picture import explain_image
    from .models.inference.predictor import load
    from .models.training.checkpoint import load_model
    from .models.training.job import Classify
    from .models.zoo.build import ModelSpec, build_model
    from .pipeline.batch.batch import Batch
    from .pipeline.compiler.program import Program
    from .pipeline.errors import (
        LightwellError,
        ModelError,
        OutputError,
        PlanError,
        RequestError,
        RunError,
        SourceError,
    )
    from .pipeline.index.build import build_index
    from .pipeline.index.index import Index
    from .pipeline.jobs.contracts import Context, Engine, Feed, TrainingJob
    from .pipeline.jobs.find_job import find_job
    from .pipeline.jobs.fingerprint import fingerprint_of
    from .pipeline.jobs.progress import LineConsole, SilentConsole, TerminalConsole
    from .pipeline.jobs.stages import Batches, BatchJob, Files, Images, Rows, SingleStageJob, Stage
    from .pipeline.load.samples import FileSample, ImageSample
    from .pipeline.plan.plan import Mix, Plan
    from .pipeline.plan.view import View
    from .pipeline.preview.preview import preview
    from .pipeline.runtime.local_engine import LocalEngine
    from .workers.local import run_batch_job, run_training_job

    __version__: str

_EXPORTS = {
    "models.audits.gradcam.job": ("GradCamAudit",),
    "models.explain.grad_cam": ("find_target_layer", "grad_cam"),
    "models.explain.one_picture": ("explain_image",),
    "models.inference.predictor": ("load",),
    "models.training.checkpoint": ("load_model",),
    "models.training.job": ("Classify",),
    "models.zoo.build": ("ModelSpec", "build_model"),
    "pipeline.batch.batch": ("Batch",),
    "pipeline.errors": (
        "LightwellError",
        "ModelError",
        "OutputError",
        "PlanError",
        "RequestError",
        "RunError",
        "SourceError",
    ),
    "pipeline.runtime.local_engine": ("LocalEngine",),
    "pipeline.index.index": ("Index",),
    "pipeline.index.build": ("build_index",),
    "pipeline.jobs.contracts": ("Context", "Engine", "Feed", "TrainingJob"),
    "pipeline.jobs.find_job": ("find_job",),
    "pipeline.jobs.fingerprint": ("fingerprint_of",),
    "pipeline.load.samples": ("FileSample", "ImageSample"),
    "pipeline.jobs.stages": ("BatchJob", "Batches", "Files", "Images", "Rows", "SingleStageJob", "Stage"),
    "pipeline.plan.plan": ("Mix", "Plan"),
    "pipeline.jobs.progress": ("LineConsole", "SilentConsole", "TerminalConsole"),
    "pipeline.compiler.program": ("Program",),
    "pipeline.plan.view": ("View",),
    "pipeline.preview.preview": ("preview",),
    "cli.submission": ("submit",),
    "workers.local": ("run_batch_job", "run_training_job"),
}
_MODULE_OF = {name: home for home, names in _EXPORTS.items() for name in names}

__all__ = [  # noqa: RUF022  (sorted without regard to case, as the test that pins them does)
    "Batch",
    "Batches",
    "BatchJob",
    "build_index",
    "build_model",
    "Classify",
    "Context",
    "Engine",
    "explain_image",
    "Feed",
    "Files",
    "FileSample",
    "find_job",
    "find_target_layer",
    "fingerprint_of",
    "grad_cam",
    "GradCamAudit",
    "Images",
    "ImageSample",
    "Index",
    "LightwellError",
    "LineConsole",
    "load",
    "load_model",
    "LocalEngine",
    "Mix",
    "ModelError",
    "ModelSpec",
    "OutputError",
    "Plan",
    "PlanError",
    "preview",
    "Program",
    "RequestError",
    "Rows",
    "run_batch_job",
    "run_training_job",
    "RunError",
    "SilentConsole",
    "SingleStageJob",
    "SourceError",
    "Stage",
    "submit",
    "TerminalConsole",
    "TrainingJob",
    "View",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("lightwell")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'lightwell' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
