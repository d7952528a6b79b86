"""Every job that is registered under ``lightwell.jobs`` keeps the contract of its kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightwell import Classify, GradCamAudit, LocalEngine, ModelSpec, Plan, build_index
from lightwell.pipeline.config.imports import JOBS, entry_point_targets
from lightwell.pipeline.export.materialize import Materialize
from lightwell.pipeline.jobs.contracts import TrainingJob
from lightwell.pipeline.jobs.find_job import find_job
from lightwell.testing import assert_batch_job, assert_job_resumes
from pictures import make_folder
from ray_jobs import files_of
from safetensors.torch import load_file

ENGINE = LocalEngine(num_threads=2)
RANDOM = ModelSpec(name="timm:test_resnet", weights="none")
EXAMPLES: dict[str, Callable[[Plan], Any]] = {
    "classify": lambda plan: Classify(plan=plan, model=RANDOM, epochs=2, fine_tune_from="layer4"),
    "gradcam": lambda plan: GradCamAudit(
        plan=plan,
        model=RANDOM.model_copy(update={"num_classes": 2}),
        split=None,
        untrained="allow",
        class_names="index",
        gallery=2,
    ),
    "materialize": lambda plan: Materialize(plan=plan, shard_images=3),
}
"""A small example of each."""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Twelve pictures of two classes in all splits, one of them cut off."""
    folder = tmp_path_factory.mktemp("every-job")
    photos = make_folder(folder / "photos", num_images=12)
    build_index(photos, fractions={"train": 0.5, "val": 0.25, "test": 0.25}).save(folder / "index.parquet")
    damaged = photos / "dog" / "003.jpg"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    policy = [{"Resize": {"height": 32, "width": 32}}]
    return Plan.model_validate(
        {"index": folder / "index.parquet", "preprocess": policy, "batch": {"size": 2}}
    )


def test_every_registered_job_has_an_example() -> None:
    assert EXAMPLES.keys() == entry_point_targets(JOBS).keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_job_keeps_the_contract_of_its_kind(plan: Plan, tmp_path: Path, name: str) -> None:
    """Interrupted after any batch it ends the same; a batch job is also done once, the same with one thread."""
    job = EXAMPLES[name](plan)
    assert isinstance(job, find_job(name))
    if isinstance(job, TrainingJob):
        assert_job_resumes(job, ENGINE, tmp_path, outcome=weights_and_counts)
        return
    assert_batch_job(job, ENGINE, tmp_path, others=[LocalEngine(num_threads=1)])
    (tmp_path / "resumes").mkdir()
    assert_job_resumes(job, ENGINE, tmp_path / "resumes", outcome=lambda out, result: files_of(out))


def weights_and_counts(out: Path, result: Any) -> Any:
    """Return the final weights, the test loss and the counts of a training."""
    weights = load_file(out / "checkpoint.safetensors")
    tensors = {name: tensor.numpy().tobytes() for name, tensor in weights.items()}
    return result["test"]["loss"], tensors, (out / "counts.json").read_text()
