"""Every job that is registered under ``lightwell.jobs`` keeps the contract of its kind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightwell import Classify, GradCamAudit, LocalEngine, ModelSpec, Plan, build_index
from lightwell.models.audits.dataset.job import DatasetAudit
from lightwell.models.features.embed import Embed
from lightwell.models.features.probe import GridOptions, ProbeFeatures
from lightwell.models.inference.evaluate import Evaluate
from lightwell.models.inference.predict import Predict
from lightwell.models.training.tasks.jobs import Train
from lightwell.pipeline.config.imports import JOBS, entry_point_targets
from lightwell.pipeline.export.materialize import Materialize
from lightwell.pipeline.jobs.contracts import TrainingJob
from lightwell.pipeline.jobs.find_job import find_job
from lightwell.pipeline.jobs.job_file import load_job
from lightwell.testing import assert_batch_job, assert_job_resumes
from pictures import make_folder
from ray_jobs import files_of
from safetensors.torch import load_file
from tasks import mask_set, multilabel_set, write_job
from trained import save_trained

pytestmark = pytest.mark.usefixtures("undrawn")
ENGINE = LocalEngine(num_threads=2)
RANDOM = ModelSpec(name="timm:test_resnet", weights="none")
EXAMPLES: dict[str, Callable[[Plan], Any]] = {
    "classify": lambda plan: Classify(plan=plan, model=RANDOM, epochs=2, fine_tune_from="layer4"),
    "evaluate": lambda plan: Evaluate(plan=plan, checkpoint=checkpoint_of(plan), bootstrap=20),
    "gradcam": lambda plan: GradCamAudit(
        plan=plan,
        model=RANDOM.model_copy(update={"num_classes": 2}),
        split=None,
        untrained="allow",
        class_names="index",
        gallery=2,
        calibrate=True,
        overlays="maps",
    ),
    "inspect": lambda plan: DatasetAudit(plan=plan),
    "embed": lambda plan: Embed(plan=plan, model=RANDOM, untrained="allow"),
    "probe": lambda plan: ProbeFeatures(plan=plan, model=RANDOM, logistic=(0.1,), grid=GridOptions(epochs=2)),
    "materialize": lambda plan: Materialize(plan=plan, shard_images=3),
    "predict": lambda plan: Predict(plan=plan, checkpoint=checkpoint_of(plan), tta="flip"),
    "multilabel": lambda plan: small_job(plan.index.parent / "labels", "multilabel"),
    "segment": lambda plan: small_job(plan.index.parent / "masks", "segment"),
    "train": lambda plan: Train(
        plan=Plan(index=plan.index.parent / "labels" / "index.parquet", batch={"size": 4}),
        model=RANDOM,
        task="lightwell.models.training.tasks.multilabel:MultilabelTask",
        monitor="map",
        epochs=1,
    ),
}
"""A small example of each."""


def checkpoint_of(plan: Plan) -> Path:
    return save_trained(plan.index.parent / "best.safetensors", plan)


def small_job(folder: Path, name: str) -> Any:
    """Load a small job, with mixed images, dropout and a picture that cannot be read."""
    return load_job(write_job(folder, name, epochs=1), default=name)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Twelve pictures of two classes in all splits, one of them cut off."""
    folder = tmp_path_factory.mktemp("every-job")
    photos = folder / "photos"
    for split, num_images in (("train", 6), ("val", 2), ("test", 4)):
        make_folder(photos / split, num_images=num_images)
    build_index(photos).save(folder / "index.parquet")
    for name, make in (("labels", multilabel_set), ("masks", mask_set)):
        (folder / name).mkdir()
        make(folder / name, num_train=7, num_other=2)
        damage(folder / name / "train-6.png")
    damage(photos / "train" / "dog" / "003.jpg")
    policy = [{"Resize": {"height": 32, "width": 32}}]
    return Plan.model_validate(
        {"index": folder / "index.parquet", "preprocess": policy, "batch": {"size": 2}}
    )


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_every_registered_job_has_an_example() -> None:
    assert EXAMPLES.keys() == entry_point_targets(JOBS).keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_job_keeps_the_contract_of_its_kind(plan: Plan, tmp_path: Path, name: str) -> None:
    """Interrupted after any batch it ends the same; a batch job is also done once, the same with one thread."""
    job = EXAMPLES[name](plan)
    assert isinstance(job, find_job(name))
    if isinstance(job, TrainingJob):
        assert_job_resumes(job, ENGINE, tmp_path, outcome=loss_and_weights)
        return
    assert_batch_job(job, ENGINE, tmp_path, others=[LocalEngine(num_threads=1)])
    (tmp_path / "resumes").mkdir()
    assert_job_resumes(job, ENGINE, tmp_path / "resumes", outcome=lambda out, result: files_of(out))


def loss_and_weights(out: Path, result: Any) -> Any:
    """Return the test metrics, and a digest of weights and, if there is one, optimiser state."""
    digest = hashlib.sha256()
    for path in sorted(out.glob("*.safetensors")):
        for name, tensor in sorted(load_file(path).items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
    timings = ("seconds", "images_per_s")
    return {name: value for name, value in result["test"].items() if name not in timings}, digest.hexdigest()
