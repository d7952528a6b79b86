"""Training on cached features gives what training on images gives, and reads no image twice."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from lightwell import Classify, LocalEngine, ModelSpec, Plan, View, build_index
from lightwell.cli.engine import open_service
from lightwell.models.features.split_model import split_model
from lightwell.models.training.checkpoint import load_model
from lightwell.models.training.optim import OptimizerSpec
from lightwell.models.zoo.build import build_model
from lightwell.models.zoo.freezing import freeze_before
from lightwell.pipeline.cache.maintenance import list_recipes, verify
from lightwell.pipeline.errors import ModelError, PlanError, RunError
from lightwell.workers.local import run_training_job

pytestmark = pytest.mark.usefixtures("undrawn")
RESNET = ModelSpec(name="timm:test_resnet", weights="none")
MOBILENET = ModelSpec(name="mobilenet_v3_small", weights="none")
AUGMENT = ["HorizontalFlip", {"RandomBrightnessContrast": {"p": 0.5}}]


class Reads(LocalEngine):
    """Local engine that records the number of images of the feeds that are iterated."""

    def __init__(self) -> None:
        super().__init__(num_threads=1)
        self.keys: list[str] = []

    def feed(self, plan: Plan, view: View, position: Mapping[str, Any] | None = None) -> Any:
        feed, keys = super().feed(plan, view, position), self.keys

        class Recorded(type(feed)):
            def __iter__(self) -> Any:
                for batch in super().__iter__():
                    keys.extend(batch.keys)
                    yield batch

        feed.__class__ = Recorded
        return feed


def write_pictures(root: Path, *, damaged: bool = False) -> Path:
    """Bright and dark pictures of 32 px: 12 to train with, 6 to validate, 4 to test."""
    generator = np.random.default_rng(3)
    for split, count in (("train", 12), ("val", 6), ("test", 4)):
        for number in range(count):
            name, brightness = (("dark", 80), ("light", 160))[number % 2]
            (root / split / name).mkdir(parents=True, exist_ok=True)
            image = np.clip(generator.normal(brightness, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
            assert cv2.imwrite(str(root / split / name / f"{number}.png"), image)
    if damaged:
        for path in (root / "train" / "dark" / "4.png", root / "val" / "light" / "1.png"):
            path.write_bytes(path.read_bytes()[:200])
    build_index(root).save(root / "index.parquet")
    return root / "index.parquet"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def job_of(index: Path, **changes: Any) -> Classify:
    plan = {"index": index, "batch": {"size": 4}, "seed": 5, **changes.pop("plan", {})}
    values = {"model": RESNET, "epochs": 3, "optimizer": OptimizerSpec(lr=0.01), **changes}
    return Classify.model_validate({"plan": Plan.model_validate(plan), **values})


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_model(out / "checkpoint.safetensors").model.state_dict()


def assert_same_result(job: Classify, out: Path, *, passes: int) -> None:
    """Train with and without features, and compare all weights and metrics to the last bit."""
    engine = LocalEngine(num_threads=1)
    plain = run_training_job(job, engine, out / "plain")
    cached = run_training_job(job.model_copy(update={"feature_passes": passes}), engine, out / "cached")
    expected, got = weights(out / "plain"), weights(out / "cached")
    assert [name for name in expected if not torch.equal(expected[name], got[name])] == []
    for result in (plain, cached):
        for split in ("validation", "test"):
            result[split] = {k: v for k, v in result[split].items() if k not in ("seconds", "images_per_s")}
    assert {**cached, "checkpoint": None} == {**plain, "checkpoint": None}


@pytest.mark.parametrize(
    ("model", "block"), [(RESNET, None), (RESNET, "layer4"), (MOBILENET, None), (MOBILENET, "classifier.0")]
)
def test_weights_equal_those_of_training_on_images_to_the_last_bit(
    index: Path, tmp_path: Path, model: ModelSpec, block: str | None
) -> None:
    """MobileNet has dropout before its head, which is drawn anew in every step."""
    job = job_of(index, model=model, fine_tune_from=block)
    assert_same_result(job, tmp_path, passes=1)


def test_as_many_passes_as_epochs_equal_augmented_training(index: Path, tmp_path: Path) -> None:
    job = job_of(index, plan={"augment": AUGMENT}, fine_tune_from="layer4")
    assert_same_result(job, tmp_path, passes=3)


def test_unreadable_images_are_replaced_as_in_training_on_images(tmp_path: Path) -> None:
    damaged = write_pictures(tmp_path / "pictures", damaged=True)
    assert_same_result(job_of(damaged), tmp_path, passes=1)


def test_a_second_run_with_another_head_reads_no_image(index: Path, tmp_path: Path) -> None:
    first, second = Reads(), Reads()
    job = job_of(index, feature_passes=1, plan={"cache": tmp_path / "cache"})
    run_training_job(job, first, tmp_path / "first")
    assert sorted(first.keys) == sorted(set(first.keys))
    assert len(first.keys) == 12 + 6 + 4
    other = job.model_copy(update={"epochs": 5, "optimizer": OptimizerSpec(name="sgd", lr=0.1)})
    run_training_job(other, second, tmp_path / "second")
    assert second.keys == []


def test_passes_of_augmentation_are_cached_each_by_itself(index: Path, tmp_path: Path) -> None:
    first, second, third = Reads(), Reads(), Reads()
    job = job_of(index, feature_passes=2, epochs=4, plan={"augment": AUGMENT, "cache": tmp_path / "cache"})
    run_training_job(job, first, tmp_path / "first")
    assert len(first.keys) == 2 * 12 + 6 + 4
    run_training_job(job.model_copy(update={"feature_passes": 3}), second, tmp_path / "second")
    assert len(second.keys) == 12
    plan = {"augment": AUGMENT[:1], "cache": tmp_path / "cache"}
    run_training_job(job_of(index, feature_passes=2, epochs=4, plan=plan), third, tmp_path / "third")
    assert len(third.keys) == 2 * 12, "other augmentation, the same images in evaluation"


def test_only_a_changed_file_and_another_trunk_are_computed_again(tmp_path: Path) -> None:
    index = write_pictures(tmp_path / "pictures")
    job = job_of(index, feature_passes=1, fine_tune_from="layer4", plan={"cache": tmp_path / "cache"})
    run_training_job(job, Reads(), tmp_path / "first")
    changed = tmp_path / "pictures" / "val" / "dark" / "0.png"
    assert cv2.imwrite(str(changed), np.full((32, 32, 3), 90, np.uint8))
    build_index(tmp_path / "pictures").save(index)
    engine = Reads()
    run_training_job(job, engine, tmp_path / "second")
    assert engine.keys == ["val/dark/0.png"]
    engine.keys.clear()
    run_training_job(job.model_copy(update={"fine_tune_from": "layer3"}), engine, tmp_path / "third")
    assert len(engine.keys) == 12 + 6 + 4


def test_features_of_a_file_that_changed_since_it_was_indexed_are_not_used(tmp_path: Path) -> None:
    index = write_pictures(tmp_path / "pictures")
    job = job_of(index, feature_passes=1, plan={"cache": tmp_path / "cache"})
    run_training_job(job, Reads(), tmp_path / "first")
    os.utime(tmp_path / "pictures" / "val" / "dark" / "0.png", (1, 1))
    result = run_training_job(job, Reads(), tmp_path / "second")
    assert (result["validation"]["images"], result["validation"]["ignored"]) == (5, 1)
    assert "the file changed: index again" in (tmp_path / "second" / "quarantine.jsonl").read_text()


def test_features_lie_below_out_if_the_plan_has_no_cache(index: Path, tmp_path: Path) -> None:
    job = job_of(index, feature_passes=1)
    run_training_job(job, Reads(), tmp_path / "out")
    (tmp_path / "out" / "checkpoint.safetensors").unlink()
    engine = Reads()
    run_training_job(job, engine, tmp_path / "out")
    assert engine.keys == []
    found = list_recipes(tmp_path / "out" / "features")
    assert [(recipe.form, recipe.steps) for recipe in found] == [
        ("features", "decode -> features of timm:test_resnet")
    ], "training and evaluation see the same images"


def test_damaged_features_are_computed_again(index: Path, tmp_path: Path) -> None:
    job = job_of(index, feature_passes=1, plan={"cache": tmp_path / "cache"})
    run_training_job(job, Reads(), tmp_path / "first")
    for path in (tmp_path / "cache").rglob("*.arrow"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert any(check.reason for check in verify(tmp_path / "cache"))
    engine = Reads()
    run_training_job(job, engine, tmp_path / "second")
    assert engine.keys
    expected, got = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_full_cache_keeps_features_in_memory(index: Path, tmp_path: Path) -> None:
    cache = {"dir": tmp_path / "cache", "max_bytes": 1}
    limited = job_of(index, feature_passes=1, plan={"cache": cache})
    engine = Reads()
    run_training_job(limited, engine, tmp_path / "limited")
    assert len(engine.keys) == 12 + 6 + 4
    run_training_job(job_of(index, feature_passes=1), engine, tmp_path / "plain")
    expected, got = weights(tmp_path / "plain"), weights(tmp_path / "limited")
    assert all(torch.equal(expected[name], got[name]) for name in expected)


class Rounding(Classify):
    """A job whose network rounds the output of its frozen part to 16 bits."""

    def build_network(self, num_outputs: int, *, seed: int) -> torch.nn.Module:
        model = super().build_network(num_outputs, seed=seed)
        last: Any = model.layer3
        last.register_forward_hook(lambda _layer, _inputs, output: output.half().float())
        return model


def test_16_bit_features_give_what_training_on_rounded_outputs_gives_in_half_the_space(
    index: Path, tmp_path: Path
) -> None:
    job = job_of(index, fine_tune_from="layer4")
    whole, half = Reads(), Reads()
    run_training_job(job.model_copy(update={"feature_passes": 1}), whole, tmp_path / "whole")
    cached = job.model_copy(update={"feature_passes": 1, "feature_dtype": "float16"})
    run_training_job(cached, half, tmp_path / "half")
    rounding = Rounding.model_validate(dict(job))
    run_training_job(rounding, LocalEngine(num_threads=1), tmp_path / "rounded")
    expected, got, exact = (weights(tmp_path / name) for name in ("rounded", "half", "whole"))
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert any(not torch.equal(exact[name], got[name]) for name in exact)
    assert half.keys == whole.keys
    sizes = [
        sum(path.stat().st_size for path in (tmp_path / name / "features").rglob("*.arrow"))
        for name in ("half", "whole")
    ]
    assert sizes[0] < 0.6 * sizes[1]


def test_features_too_large_for_16_bits_are_refused(index: Path, tmp_path: Path) -> None:
    class Scaling(Classify):
        def build_network(self, num_outputs: int, *, seed: int) -> torch.nn.Module:
            model = super().build_network(num_outputs, seed=seed)
            with torch.no_grad():
                for parameter in model.get_submodule("layer3").parameters():
                    parameter.mul_(1e4)
            return model

    job = dict(job_of(index, fine_tune_from="layer4", feature_passes=1, feature_dtype="float16"))
    with pytest.raises(
        RunError, match=r"features of at most 65,504 for float16, got .*; remove feature_dtype"
    ):
        run_training_job(Scaling.model_validate(job), LocalEngine(num_threads=1), tmp_path / "out")
    with pytest.raises(PlanError, match="expected feature_passes beside it, got float16 alone"):
        job_of(index, feature_dtype="float16")


def test_what_cannot_be_cached_is_refused_with_the_cure(index: Path) -> None:
    with pytest.raises(PlanError, match="expected frozen layers, got fine_tune_from: all"):
        job_of(index, feature_passes=1, fine_tune_from="all")
    with pytest.raises(PlanError, match="expected a plan without mix, got MixUp"):
        job_of(index, feature_passes=1, plan={"mix": {"kind": "MixUp"}})
    with pytest.raises(ModelError, match="expected frozen layers at the beginning"):
        job_of(index, feature_passes=1, fine_tune_from="conv1").check_request(trains_here=True)


def test_a_served_stream_is_refused_as_nothing_of_it_would_be_read(index: Path, tmp_path: Path) -> None:
    job_of(index).plan.save(tmp_path / "plan.yaml")
    job = tmp_path / "train.yaml"
    job.write_text(
        "plan: plan.yaml\nmodel: {name: resnet18, weights: none}\nfeature_passes: 1\nfeed: service://sweep/a\n"
    )
    with pytest.raises(
        PlanError, match="expected a job that reads the served batches, got one with feature_passes"
    ):
        open_service(job, "classify", options={"address": None, "threads": 0, "memory": None})


NETWORKS = ("alexnet", "googlenet", "timm:test_vit", "timm:test_convnext", "squeezenet1_1")


@pytest.mark.parametrize("name", NETWORKS)
def test_trunk_and_rest_compute_what_the_network_does(name: str) -> None:
    model = build_model(ModelSpec(name=name, weights="none"), warn=False)
    freeze_before(model, None)
    split = split_model(model)
    size = 160 if name.startswith("timm:") else 64
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = split.features(images)
        assert torch.equal(split.rest(features), model(images))
    assert features[0].numel() < images[0].numel()
    assert not model.training
