"""Multi-label classification: loss and metrics against torch and scikit-learn, and jobs from an index to a checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightwell.models.training.checkpoint import load_model, read_metadata
from lightwell.models.training.distributed.context import DistributedContext
from lightwell.models.training.tasks.jobs import Multilabel
from lightwell.models.training.tasks.multilabel import BinaryCrossEntropy, MultilabelMetrics
from lightwell.models.training.tasks.task import mean_loss
from lightwell.models.training.train_batch import TrainBatch
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.job_file import load_job
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_training_job
from pictures import make_folder
from sklearn.metrics import average_precision_score, f1_score
from tasks import CHANNELS, multilabel_set, write_job

TARGETS = torch.tensor([[1, 0, 1], [0, 0, 0], [-1, -1, -1], [1, 1, 1]], dtype=torch.int8)
SCORES = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))


def batch_of(targets: torch.Tensor, replaced: list[int] = [], **mixed: torch.Tensor) -> TrainBatch:  # noqa: B006
    flags = torch.zeros(len(targets), dtype=torch.bool)
    flags[replaced] = True
    return TrainBatch(torch.zeros(len(targets), 1), targets, flags, **mixed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("labels")
    multilabel_set(root)
    return root


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0])])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_torchs_without_unlabelled_rows(weights: torch.Tensor | None, smoothing: float) -> None:
    kept = [0, 1, 3]
    smoothed = TARGETS[kept].float() * (1 - smoothing) + smoothing / 2
    usual = torch.nn.BCEWithLogitsLoss(pos_weight=weights)(SCORES[kept], smoothed)
    ours = mean_loss(BinaryCrossEntropy(weights, smoothing), SCORES, batch_of(TARGETS))
    assert float(ours) == pytest.approx(float(usual), rel=1e-6)


def test_mixed_images_contribute_to_both_label_sets() -> None:
    first, second, share = TARGETS[[0, 1]], TARGETS[[1, 3]], torch.tensor([0.25, 0.25])
    mixed = batch_of(first, mixed_targets=second, mixed_weights=share)
    usual = torch.nn.BCEWithLogitsLoss()
    expected = 0.75 * usual(SCORES[:2], first.float()) + 0.25 * usual(SCORES[:2], second.float())
    assert float(mean_loss(BinaryCrossEntropy(), SCORES[:2], mixed)) == pytest.approx(float(expected))


def test_metrics_are_scikit_learns_without_unlabelled_and_replaced_rows() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (60, 3)).astype(np.int8)
    truth[:, 2] = 0
    truth[5] = -1
    scores = torch.from_numpy(rng.normal(truth, 1.0))
    metrics = MultilabelMetrics(CHANNELS, 60)
    for rows in (slice(0, 40), slice(40, 60)):
        metrics.update(scores[rows], batch_of(torch.from_numpy(truth[rows]), [7]))
    result = metrics.compute(DistributedContext(), 60)
    kept = np.setdiff1d(np.arange(60), [5, 7, 47])
    known, found = truth[kept], scores.numpy()[kept]
    precision = np.mean([average_precision_score(known[:, c], found[:, c]) for c in (0, 1)])
    f1 = f1_score(known[:, :2], found[:, :2] >= 0, average="macro")
    assert result.as_dict() == {
        "images": 57,
        "ignored": 3,
        "map": pytest.approx(precision),
        "f1": pytest.approx(f1),
    }
    details = result.details(result.thresholds)
    assert result.thresholds[2] == 0.5
    assert details["per_class"]["red"] == {"threshold": 0.5, "f1": None, "average_precision": None}
    assert details["f1_at_thresholds"] >= f1


def test_a_job_learns_several_labels_and_keeps_a_threshold_for_each_class(
    folder: Path, tmp_path: Path
) -> None:
    path = write_job(folder, "multilabel", epochs=6, plan={"mix": None}, label_smoothing=0)
    job = load_job(path, default="classify")
    assert isinstance(job, Multilabel)
    result = run_training_job(job, LocalEngine(num_threads=1), tmp_path / "out", SilentConsole())
    assert (
        result["test"]["map"] > 0.9
    )  # a constant prediction has the share of images with the class, about 0.55
    assert set(result["test"]["per_class"]) == set(CHANNELS)
    metadata, header = read_metadata(tmp_path / "out" / "best.safetensors")
    assert (metadata.task, header["task"]) == ("multilabel", "multilabel")
    assert len(metadata.thresholds) == 3
    assert result["test"]["per_class"]["red"]["threshold"] == metadata.thresholds[2]
    loaded = load_model(tmp_path / "out" / "best.safetensors")
    assert loaded.classes == CHANNELS
    assert loaded.model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_an_unlabelled_image_is_not_counted(folder: Path) -> None:
    job = load_job(write_job(folder, "multilabel"), default="classify")
    labelled = job.check().is_labelled
    assert (len(labelled), int(labelled.sum())) == (34, 33)


def test_what_the_index_lacks_is_refused_with_the_cure(folder: Path, tmp_path: Path) -> None:
    def job(**changes: object) -> Multilabel:
        return load_job(write_job(folder, "multilabel", **changes), default="classify")

    with pytest.raises(
        PlanError, match=r"positive_weights: expected a weight for each of the 3 classes .*, got 2"
    ):
        job(positive_weights=[1.0, 2.0]).check()
    with pytest.raises(
        PlanError,
        match="positive_weights: expected none or a weight for each class beside the plan's sampling",
    ):
        job(plan={"sampling": "balanced"}).check()
    with pytest.raises(PlanError, match="positive_weights: expected weights above 0"):
        job(positive_weights=[1.0, 2.0, 0.0])
    with pytest.raises(PlanError, match=r"monitor: expected 'loss', 'map' or 'f1', got 'auroc'"):
        job(monitor="auroc")
    with pytest.raises(
        PlanError, match=r"early_stop.metric: expected one of loss, map, f1, got 'mapp'; did you mean 'map'"
    ):
        job(early_stop={"metric": "mapp"}).check()
    build_index(make_folder(tmp_path / "photos", num_images=8), fractions={"train": 0.5, "val": 0.5}).save(
        tmp_path / "index.parquet"
    )
    single = load_job(write_job(tmp_path, "multilabel"), default="classify")
    with pytest.raises(PlanError, match=r"expected images with sets of labels .* write job: classify"):
        single.check()


def test_a_class_that_occurs_in_validation_only_is_refused_and_one_absent_there_is_noted(
    tmp_path: Path,
) -> None:
    multilabel_set(tmp_path, num_train=4, num_other=1)  # training: blue, green and both
    job = load_job(write_job(tmp_path, "multilabel", test_split=None), default="classify")
    index = job.plan.load_index()
    assert job.validation_notes(index, job.task_of(index)) == (
        "no image of 'green' in 'val': these classes are not validated",
    )
    other = job.model_copy(update={"train_split": "val", "validation_split": "train"})
    with pytest.raises(PlanError, match="expected images of every class in 'val', got none of 'green'"):
        other.check()
