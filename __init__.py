"""Lightwell: Albumentations is the language, DALI the machine, Ray the floor, Grad-CAM the auditor.

The public names below are loaded when they are first used: ``import lightwell`` itself loads neither torch,
ray, DALI nor Albumentations.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .models.audit.job import GradCamAudit
    from .models.cam import find_target_layer, grad_cam
    from .models.training.checkpoint import load_model
    from .models.training.job import Classify
    from .models.zoo import ModelSpec, build_model
    from .pipeline.batch import Batch
    from .pipeline.compiler.program import Program
    from .pipeline.dataset.index import Index
    from .pipeline.dataset.indexing import build_index
    from .pipeline.engine.feed import LocalEngine
    from .pipeline.errors import (
        LightwellError,
        ModelError,
        OutputError,
        PlanError,
        RequestError,
        RunError,
        SourceError,
    )
    from .pipeline.jobs import BatchJob, Context, Engine, Feed, TrainingJob, find_job
    from .pipeline.plan import Mix, Plan
    from .pipeline.progress import LineConsole, SilentConsole, TerminalConsole
    from .pipeline.view import View
    from .submission import submit
    from .workers.local import run_batch_job, run_training_job

    __version__: str

_HOMES = {
    "models.audit.job": ("GradCamAudit",),
    "models.cam": ("find_target_layer", "grad_cam"),
    "models.training.checkpoint": ("load_model",),
    "models.training.job": ("Classify",),
    "models.zoo": ("ModelSpec", "build_model"),
    "pipeline.batch": ("Batch",),
    "pipeline.errors": (
        "LightwellError",
        "ModelError",
        "OutputError",
        "PlanError",
        "RequestError",
        "RunError",
        "SourceError",
    ),
    "pipeline.engine.feed": ("LocalEngine",),
    "pipeline.dataset.index": ("Index",),
    "pipeline.dataset.indexing": ("build_index",),
    "pipeline.jobs": ("BatchJob", "Context", "Engine", "Feed", "TrainingJob", "find_job"),
    "pipeline.plan": ("Mix", "Plan"),
    "pipeline.progress": ("LineConsole", "SilentConsole", "TerminalConsole"),
    "pipeline.compiler.program": ("Program",),
    "pipeline.view": ("View",),
    "submission": ("submit",),
    "workers.local": ("run_batch_job", "run_training_job"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022  (sorted without regard to case, as the test that pins them does)
    "Batch",
    "BatchJob",
    "build_index",
    "build_model",
    "Classify",
    "Context",
    "Engine",
    "Feed",
    "find_job",
    "find_target_layer",
    "grad_cam",
    "GradCamAudit",
    "Index",
    "LightwellError",
    "LineConsole",
    "load_model",
    "LocalEngine",
    "Mix",
    "ModelError",
    "ModelSpec",
    "OutputError",
    "Plan",
    "PlanError",
    "Program",
    "RequestError",
    "run_batch_job",
    "run_training_job",
    "RunError",
    "SilentConsole",
    "SourceError",
    "submit",
    "TerminalConsole",
    "TrainingJob",
    "View",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("lightwell")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'lightwell' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
