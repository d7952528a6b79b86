"""The training job from an index to a checkpoint, through the local engine."""

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lightwell.models.training.checkpoint import load_model
from lightwell.models.training.evaluation import evaluate
from lightwell.models.training.job import Classify
from lightwell.models.training.optim import EarlyStop, OptimizerSpec
from lightwell.models.training.optimization.schedule import LRSchedule
from lightwell.models.training.train_batch import to_train_batch
from lightwell.models.training.train_data import split_batches
from lightwell.models.zoo.build import ModelSpec
from lightwell.pipeline.batch.batch import Batch
from lightwell.pipeline.errors import ModelError, PlanError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.contracts import Context, TrainingJob
from lightwell.pipeline.jobs.job_file import load_job
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.plan.plan import BatchOptions, Plan
from lightwell.pipeline.plan.sampling import Sampling
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_training_job

pytestmark = pytest.mark.usefixtures("undrawn")
MODEL = ModelSpec(name="timm:test_resnet", weights="none")
NORMALIZE = {"Normalize": {"mean": [0.5] * 3, "std": [0.5] * 3}}


class Terminal(SilentConsole):
    """Records printed lines; raises KeyboardInterrupt in a training batch."""

    def __init__(self, stop_at: tuple[int, int] | None = None) -> None:
        self.lines: list[str] = []
        self.stop_at = stop_at

    def print(self, line: str) -> None:
        self.lines.append(line)

    def track(self, batches: object, label: str) -> Iterator[Batch]:
        for batch in batches:
            if label == "train" and (batch.epoch, batch.step) == self.stop_at:
                raise KeyboardInterrupt
            yield batch


class Watched(LocalEngine):
    """Local engine that records the requested views."""

    views: list[View] = []  # noqa: RUF012

    def feed(self, plan: Plan, view: View) -> object:
        self.views.append(view)
        return super().feed(plan, view)


def write_images(root: Path, split: str, name: str, count: int, brightness: int) -> None:
    folder = root / split / name
    folder.mkdir(parents=True)
    generator = np.random.default_rng([brightness, count])
    for number in range(count):
        image = np.clip(generator.normal(brightness, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
        assert cv2.imwrite(str(folder / f"{number}.png"), image)


@pytest.fixture(scope="module")
def index_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright and dark images: 12 and 8 for training, 4 and 4 in each of the other splits."""
    root = tmp_path_factory.mktemp("images")
    for split, counts in (("train", (12, 8)), ("val", (4, 4)), ("test", (4, 4))):
        write_images(root, split, "bright", counts[0], 170)
        write_images(root, split, "dark", counts[1], 70)
    build_index(root).save(root / "index.parquet")
    return root / "index.parquet"


@pytest.fixture(scope="module")
def plan(index_path: Path) -> Plan:
    augment = ["HorizontalFlip"]
    return Plan(index=index_path, preprocess=[NORMALIZE], augment=augment, batch={"size": 8}, seed=3)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One torch thread, so that floating-point sums do not depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(job: Classify, out: Path, console: Terminal | None = None) -> dict:
    engine = LocalEngine(num_threads=1)
    left = job.resume_point(out)
    with engine.feed(job.plan, left.view, left.position) as feed:
        return dict(job.run(feed, Context(engine, out, console or Terminal())))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_model(path).model.state_dict()


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_head_is_trained_on_a_frozen_backbone_and_all_outputs_are_written(
    plan: Plan, tmp_path: Path
) -> None:
    optimizer = OptimizerSpec(lr=0.05)
    job = Classify(plan=plan, model=MODEL, epochs=3, optimizer=optimizer, class_weights="balanced")
    assert isinstance(job, TrainingJob)
    console, state = Terminal(), torch.get_rng_state()
    result = train(job, tmp_path, console)
    assert torch.equal(state, torch.get_rng_state())
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert result["epochs"] == 3
    assert result["test"]["auroc"] == 1
    assert np.sum(result["test"]["confusion"]) == 8
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["split"]) for line in lines] == [
        (e, s) for e in range(3) for s in ("train", "val")
    ]
    keys = {"loss", "accuracy", "balanced_accuracy", "auroc", "images_per_s", "lr", "seconds"}
    assert all(keys <= line.keys() for line in lines)
    assert [line["images"] for line in lines[:2]] == [20, 8]
    assert [line.split(":")[0] for line in console.lines] == [
        "weights",
        *(f"epoch {number}/3" for number in (1, 2, 3)),
        f"test, weights of epoch {result['best_epoch'] + 1}",
    ]
    assert (
        "random and frozen: conv1, bn1, layer1 and 3 more; fine_tune_from: conv1 trains them"
        in console.lines[0]
    )
    assert "auroc" in console.lines[1]
    names = {path.name for path in tmp_path.iterdir()}
    figures = {"curves.png", "confusion.png", "reliability.png"}
    weights_and_tables = {"best.safetensors", "checkpoint.safetensors", "metrics.jsonl", "result.json"}
    assert names == {*weights_and_tables, *figures, "run.json"}


def test_a_frozen_backbone_keeps_its_weights_and_batchnorm_statistics(plan: Plan, tmp_path: Path) -> None:
    before = tmp_path / "before"
    train(Classify(plan=plan, model=MODEL, epochs=1, optimizer=OptimizerSpec(lr=1e-9)), before)
    train(Classify(plan=plan, model=MODEL, epochs=2), tmp_path / "after")
    first, second = (weights(path / "checkpoint.safetensors") for path in (before, tmp_path / "after"))
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert changed == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(("block", "kept"), [("layer4", ("conv1", "layer1", "layer3")), ("all", ())])
def test_fine_tuning_trains_the_given_block_and_all_later_ones(
    block: str, kept: tuple[str, ...], plan: Plan, tmp_path: Path
) -> None:
    job = Classify(plan=plan, model=MODEL, epochs=1, fine_tune_from=block, test_split=None)
    result = train(job, tmp_path)
    assert result["test"] is None
    torch.manual_seed(0)
    start = tmp_path / "start"
    train(job.model_copy(update={"optimizer": OptimizerSpec(lr=1e-12, weight_decay=0)}), start)
    first, second = weights(start / "checkpoint.safetensors"), weights(tmp_path / "checkpoint.safetensors")
    moved = {
        name.split(".")[0]
        for name in first
        if (first[name].float() - second[name].float()).abs().max() > 1e-7
    }
    assert {"layer4", "fc"} <= moved
    assert not moved & set(kept)
    assert block != "all" or {"conv1", "layer1"} <= moved


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_an_interrupted_run_gives_the_result_of_an_uninterrupted_one(
    name: str, plan: Plan, tmp_path: Path
) -> None:
    optimizer = OptimizerSpec(name=name, lr=0.01)
    job = Classify(plan=plan, model=MODEL, epochs=4, optimizer=optimizer, fine_tune_from="layer4")
    whole = train(job, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path / "parts", Terminal(stop_at=(2, 1)))
    left = job.resume_point(tmp_path / "parts")
    assert (left.position["epoch"], left.position["step"]) == (2, 0)
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "spl')  # the process died in the middle of a line
    parts = train(job, tmp_path / "parts")
    for kind in ("checkpoint", "best"):
        ours, theirs = (weights(tmp_path / run / f"{kind}.safetensors") for run in ("whole", "parts"))
        assert same(ours, theirs)
    lines = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert (parts["best_epoch"], parts["test"]["loss"]) == (whole["best_epoch"], whole["test"]["loss"])


def test_a_finished_run_can_be_extended_by_more_epochs_if_the_schedule_allows_it(
    plan: Plan, tmp_path: Path
) -> None:
    job = Classify(plan=plan, model=MODEL, epochs=4, schedule=LRSchedule(kind="constant"))
    train(job, tmp_path / "four")
    train(job.model_copy(update={"epochs": 2}), tmp_path / "two")
    train(job, tmp_path / "two")
    ours, theirs = (weights(tmp_path / run / "checkpoint.safetensors") for run in ("four", "two"))
    assert same(ours, theirs)


def test_a_finished_run_is_not_trained_again(plan: Plan, tmp_path: Path) -> None:
    job = Classify(plan=plan, model=MODEL, epochs=1)
    first = train(job, tmp_path)
    stamp = (tmp_path / "checkpoint.safetensors").stat().st_mtime_ns
    again = train(job, tmp_path, Terminal(stop_at=(0, 0)))
    assert (tmp_path / "checkpoint.safetensors").stat().st_mtime_ns == stamp
    assert again["test"]["loss"] == first["test"]["loss"]


def test_another_job_in_the_same_folder_is_refused_with_the_keys_that_differ(
    plan: Plan, tmp_path: Path
) -> None:
    job = Classify(plan=plan, model=MODEL, epochs=1)
    train(job, tmp_path)
    other = Classify(plan=plan.model_copy(update={"seed": 4}), model=MODEL, epochs=1, label_smoothing=0.1)
    expected = r"label_smoothing was 0\.0 and is 0\.1; plan\.seed was 3 and is 4; choose another --out"
    with pytest.raises(PlanError, match=expected):
        other.resume_point(tmp_path)


def test_early_stop_ends_the_run(plan: Plan, tmp_path: Path) -> None:
    stop = EarlyStop(metric="loss", patience=1)
    optimizer = OptimizerSpec(name="sgd", lr=1e-12, momentum=0, weight_decay=0)
    job = Classify(plan=plan, model=MODEL, epochs=5, optimizer=optimizer, early_stop=stop)
    assert train(job, tmp_path)["epochs"] == 2
    assert train(job, tmp_path)["epochs"] == 2


def test_an_index_with_one_class_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write_images(tmp_path / "one", split, "only", 2, 90)
    build_index(tmp_path / "one").save(tmp_path / "one.parquet")
    job = Classify(plan=Plan(index=tmp_path / "one.parquet"), model=MODEL)
    with pytest.raises(PlanError, match=r"expected at least two classes, got one \(only\)"):
        job.check()


def test_a_class_without_training_images_is_refused(tmp_path: Path) -> None:
    for split, names in (("train", "ab"), ("val", "abc"), ("test", "abc")):
        for name in names:
            write_images(tmp_path / "some", split, name, 1, 90)
    build_index(tmp_path / "some").save(tmp_path / "some.parquet")
    job = Classify(plan=Plan(index=tmp_path / "some.parquet"), model=MODEL)
    with pytest.raises(PlanError, match="expected images of every class in 'train', got none of 'c'"):
        job.check()


def test_an_unknown_split_is_refused_with_the_existing_ones(plan: Plan) -> None:
    with pytest.raises(PlanError, match=r"validation_split: .* got 'nonesuch'; it has test, train, val"):
        Classify(plan=plan, model=MODEL, validation_split="nonesuch").check()
    with pytest.raises(PlanError, match=r"test_split: .*or write test_split: null"):
        Classify(plan=plan, model=MODEL, test_split="holdout").check()


def test_an_unknown_block_is_refused(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="layer4"):
        train(Classify(plan=plan, model=MODEL, fine_tune_from="layer5"), tmp_path)


REFUSED_REQUESTS = {
    "block": ({"fine_tune_from": "layr4"}, "fine_tune_from: expected a block"),
    "weights": ({"model": ModelSpec(name="timm:test_resnet", weights="no/such.pth")}, "no/such.pth"),
    "model": ({"model": ModelSpec(name="timm:test_resnett", weights="none")}, "test_resnett"),
    "classes": ({"model": MODEL.model_copy(update={"num_classes": 7})}, "num_classes"),
    "device": ({"device": "cuda"}, "device: expected auto, cpu or cuda, got 'cuda'"),
}


@pytest.mark.parametrize("case", REFUSED_REQUESTS)
def test_a_refused_request_neither_makes_nor_changes_an_output_folder(
    plan: Plan, tmp_path: Path, case: str
) -> None:
    changes, message = REFUSED_REQUESTS[case]
    if case == "device" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    job = Classify(plan=plan, **{"model": MODEL, **changes})
    for out in (tmp_path / "new", tmp_path / "empty"):
        if out.name == "empty":
            out.mkdir()
        with pytest.raises(ModelError, match=message):
            run_training_job(job, LocalEngine(num_threads=1), out)
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_a_last_batch_of_one_image_is_dropped_only_if_batchnorm_is_trained(plan: Plan) -> None:
    nineteen = plan.model_copy(update={"batch": plan.batch.model_copy(update={"size": 19})})
    assert Classify(plan=nineteen, model=MODEL, fine_tune_from="layer4").view.drop_last
    assert not Classify(plan=nineteen, model=MODEL).view.drop_last
    assert not Classify(plan=plan, model=MODEL, fine_tune_from="layer4").view.drop_last


def test_a_job_file_is_read_and_a_wrong_key_is_refused(index_path: Path, tmp_path: Path) -> None:
    written = "plan: {index: INDEX}\nmodel: {name: resnet18, weights: none}\nschedule: cosine\n".replace(
        "INDEX", str(index_path)
    )
    (tmp_path / "job.yaml").write_text(written + "early_stop: {metric: loss, patience: 2}\n")
    job = load_job(tmp_path / "job.yaml", default="classify")
    assert isinstance(job, Classify)
    assert job.early_stop == EarlyStop(metric="loss", patience=2)
    (tmp_path / "job.yaml").write_text(written + "epoch: 3\n")
    with pytest.raises(PlanError, match="epoch: no such key; did you mean 'epochs'"):
        load_job(tmp_path / "job.yaml", default="classify")


def test_class_weights_beside_sampling_are_refused(plan: Plan) -> None:
    sampled = plan.model_copy(update={"sampling": Sampling()})
    job = Classify(plan=sampled, model=MODEL, class_weights="balanced")
    with pytest.raises(
        PlanError, match="class_weights: expected none beside the plan's sampling, got balanced"
    ):
        job.check()
    assert Classify(plan=sampled, model=MODEL).check().classes == ("bright", "dark")


def test_evaluation_by_several_ranks_equals_that_of_one(plan: Plan) -> None:
    """Three ranks evaluate eight images in batches of six: the last batch has two images and one padding row."""
    plan = plan.model_copy(update={"batch": BatchOptions(size=6)})
    engine, kept = LocalEngine(num_threads=1), []
    for rank in range(3):
        with engine.feed(plan, View(split="val", rank=rank, num_ranks=3)) as feed:
            kept += [batch.without_padding() for batch in feed]
    assert [len(batch) for batch in kept] == [2, 1, 2, 1, 2, 0]
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(2))
    device = torch.device("cpu")
    task = Classify(plan=plan, model=MODEL).check()
    shared = evaluate(net, (to_train_batch(batch, device) for batch in kept if len(batch)), task, 8)
    alone = evaluate(net, split_batches(Context(engine, Path(), Terminal()), plan, "val", device), task, 8)
    assert shared.metrics.num_images == alone.metrics.num_images == 8
    assert np.array_equal(shared.metrics.confusion, alone.metrics.confusion)
    assert shared.loss == pytest.approx(alone.loss)
