"""Training recipes are complete job files with the published hyperparameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightwell.cli.new import recipe
from lightwell.models.recipes import read_recipe, recipe_names
from lightwell.pipeline.compiler.program import Program
from lightwell.pipeline.errors import RequestError
from lightwell.pipeline.jobs.job_file import load_job

PUBLISHED: dict[str, dict[str, Any]] = {
    # Krizhevsky et al., NIPS 2012, section 5 (learning) and 4.1 (crops of 224, flips, PCA of colours)
    "alexnet": {
        "model.name": "alexnet", "plan.batch.size": 128, "epochs": 90,
        "optimizer.name": "sgd", "optimizer.lr": 0.01, "optimizer.momentum": 0.9, "optimizer.weight_decay": 5e-4,
        "schedule.kind": "plateau", "schedule.step_factor": 0.1,
        "augment": ["RandomCrop", "HorizontalFlip", "FancyPCA"],
    },
    # Simonyan and Zisserman, ICLR 2015, section 3.1
    "vgg": {
        "model.name": "vgg16", "plan.batch.size": 256, "epochs": 74,
        "optimizer.name": "sgd", "optimizer.lr": 0.01, "optimizer.momentum": 0.9, "optimizer.weight_decay": 5e-4,
        "schedule.kind": "plateau", "schedule.step_factor": 0.1,
        "augment": ["RandomCrop", "HorizontalFlip", "FancyPCA"],
    },
    # Szegedy et al., CVPR 2015, section 6
    "googlenet": {
        "model.name": "googlenet", "optimizer.name": "sgd", "optimizer.momentum": 0.9,
        "schedule.kind": "step", "schedule.step_epochs": 8, "schedule.step_factor": 0.96, "ema.decay": 0.9999,
        "augment": ["RandomResizedCrop", "HorizontalFlip", "ColorJitter"],
    },
    # He et al., CVPR 2016, section 3.4
    "resnet": {
        "model.name": "resnet50", "plan.batch.size": 256, "epochs": 120,
        "optimizer.name": "sgd", "optimizer.lr": 0.1, "optimizer.momentum": 0.9, "optimizer.weight_decay": 1e-4,
        "schedule.kind": "plateau", "schedule.step_factor": 0.1,
        "augment": ["SmallestMaxSize", "RandomCrop", "HorizontalFlip", "FancyPCA"],
    },
}  # fmt: skip


def load(name: str, folder: Path) -> Any:
    (folder / "train.yaml").write_text(read_recipe(name))
    return load_job(folder / "train.yaml", default="classify")


def value_of(job: Any, key: str) -> Any:
    if key == "augment":
        return [spec.name for spec in job.plan.augment]
    for part in key.split("."):
        job = getattr(job, part)
    return job


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_a_job_whose_plan_compiles_with_its_command_and_result_on_top(
    name: str, tmp_path: Path
) -> None:
    job = load(name, tmp_path)
    Program.compile(job.plan)
    header = read_recipe(name).partition("\njob:")[0]
    assert "lightwell train train.yaml --out" in header
    assert "Published:" in header or "Expected result:" in header
    assert all(line.startswith("#") for line in header.splitlines())


@pytest.mark.parametrize("name", PUBLISHED)
def test_hyperparameters_are_the_published_ones(name: str, tmp_path: Path) -> None:
    job = load(name, tmp_path)
    assert {key: value_of(job, key) for key in PUBLISHED[name]} == PUBLISHED[name]
    assert (job.model.weights, job.fine_tune_from, job.optimizer.backbone_lr_mult) == ("none", "all", 1.0)


def test_googlenets_crops_have_8_to_100_percent_of_the_area_and_sides_of_3_to_4(tmp_path: Path) -> None:
    crop = load("googlenet", tmp_path).plan.augment[0].dump()["RandomResizedCrop"]
    assert (crop["scale"], crop["ratio"]) == ([0.08, 1.0], [0.75, 1.3333])


def test_the_command_prints_a_recipe_or_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    recipe("resnet")
    assert capsys.readouterr().out == read_recipe("resnet")
    recipe(None)
    assert capsys.readouterr().out.split() == list(recipe_names())


def test_an_unknown_recipe_is_refused_with_the_closest_name() -> None:
    with pytest.raises(
        RequestError, match=r"recipe: expected one of alexnet, .* got 'resnet50'; did you mean 'resnet'"
    ):
        read_recipe("resnet50")
