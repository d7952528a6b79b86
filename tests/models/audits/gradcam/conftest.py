"""A plan, a checkpoint and a finished audit, for all tests of the audit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.models.training.checkpoint import CheckpointMetadata, save_checkpoint
from lightwell.models.zoo.build import ModelSpec, build_model
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_batch_job
from pictures import make_folder
from shortcut import marked_plan, train_on_mark

SPEC = ModelSpec(name="resnet18", weights="none", num_classes=2)
TRAINED = ({"loss": 0.5},)
PREPROCESS = [
    {"Resize": {"height": 64, "width": 64}},
    {"Normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}},
]


@pytest.fixture(scope="session")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Ten images of two classes, one of them truncated, all in the split ``test``."""
    root = tmp_path_factory.mktemp("audit")
    photos = make_folder(root / "photos", num_images=10)
    damaged = photos / "cat" / "004.jpg"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    index = root / "index.parquet"
    build_index(photos, fractions={"test": 1.0}).save(index)
    return Plan.model_validate({"index": index, "preprocess": PREPROCESS, "batch": {"size": 4}})


@pytest.fixture(scope="session")
def checkpoint(plan: Plan) -> Path:
    torch.manual_seed(0)
    path = plan.index.parent / "best.safetensors"
    save_checkpoint(path, build_model(SPEC), CheckpointMetadata(SPEC, ("cat", "dog"), "0", {}, TRAINED))
    lines = [json.dumps({"epoch": e, "split": "val", "loss": 1 / (e + 1), "accuracy": 0.5}) for e in range(3)]
    (path.parent / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def audited(plan: Plan, checkpoint: Path) -> Path:
    """Output folder of a finished audit."""
    out = plan.index.parent / "out"
    job = GradCamAudit(plan=plan, checkpoint=checkpoint, gallery=6, credit="Pictures: made up")
    run_batch_job(job, LocalEngine(num_threads=1), out, SilentConsole())
    return out


@pytest.fixture(scope="session")
def marked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    """A plan of images with a planted mark, and a checkpoint that has learned it."""
    plan = marked_plan(tmp_path_factory.mktemp("marked"))
    return plan, train_on_mark(plan, plan.index.parent / "marked.safetensors")
