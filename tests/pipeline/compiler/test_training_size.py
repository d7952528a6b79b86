"""Progressive image size: which plans have a size of training images that can be changed."""

from __future__ import annotations

from typing import Any

import albumentations as A
import numpy as np
import pytest
from lightwell.pipeline.compiler.program import Program
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.tools.explain import explain


def plan_for(steps: Any = ((1, 16), (3, [24, 20])), **policies: Any) -> Plan:
    sizes = [{"until_epoch": epoch, "size": size} for epoch, size in steps]
    return Plan.model_validate({"index": "index.parquet", "progressive_size": sizes, **policies})


@pytest.mark.parametrize(
    "policies",
    [
        {"augment": [A.RandomResizedCrop((32, 32)), A.HorizontalFlip(), A.Perspective(), A.GaussNoise()]},
        {"augment": [A.RandomCrop(40, 40), A.Resize(32, 32), A.Affine(rotate=(-9, 9))]},
        {"augment": [A.RandomSizedCrop((20, 40), (32, 32)), A.Normalize()]},
        {"preprocess": [A.SmallestMaxSize(40), A.Resize(32, 32)], "augment": [A.HorizontalFlip()]},
    ],
)
def test_training_images_have_the_size_of_their_epoch(policies: dict[str, Any]) -> None:
    program = Program.compile(plan_for(**policies))
    picture = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    found = [program.at_epoch(e).compose(augment=True)(image=picture)["image"].shape[:2] for e in range(5)]
    assert found == [(16, 16), (24, 20), (24, 20), (32, 32), (32, 32)]
    assert program.at_epoch(3) is program
    shown = {step.name: step.options for step in explain(program, None)}
    assert shown["ProgressiveSize"] == "16x16 until epoch 1, 24x20 until epoch 3"


@pytest.mark.parametrize(
    ("policies", "got"),
    [
        ({"augment": [A.Resize(40, 40), A.RandomCrop(32, 32)]}, r"augment\[1\]\.RandomCrop"),
        ({"augment": [A.LongestMaxSize(32), A.PadIfNeeded(32, 32)]}, r"augment\[1\]\.PadIfNeeded"),
        ({"augment": [A.Resize(32, 32, p=0.5)]}, r"augment\[0\]\.Resize with p: 0\.5"),
        ({"augment": [A.OneOf([A.Resize(32, 32), A.RandomResizedCrop((32, 32))])]}, r"augment\[0\]\.OneOf"),
        ({"augment": [A.HorizontalFlip()]}, "none"),
        (
            {"preprocess": [A.Resize(32, 32)], "cache": {"dir": "cache"}},
            r"preprocess\[0\]\.Resize, whose images the cache holds",
        ),
    ],
)
def test_a_size_that_no_single_transform_sets_is_refused_with_the_cure(
    policies: dict[str, Any], got: str
) -> None:
    with pytest.raises(PlanError, match=f"got {got}; end augment with Resize"):
        Program.compile(plan_for(**policies))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "whose until_epoch increases, got none"),
        ([(3, 16), (3, 24)], r"whose until_epoch increases, got \[3, 3\]"),
        ([(1, 24), (2, 16)], r"sizes that grow, got \[24, 24\] before \[16, 16\]"),
        ([(1, 0)], r"a height and width of 1 to 65536, got \[0, 0\]"),
        ([(1, 40)], r"at most \[32, 32\], the size of augment\[0\]\.Resize, got \[40, 40\]"),
    ],
)
def test_steps_that_do_not_grow_to_the_size_of_the_plan_are_refused(steps: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Program.compile(plan_for(steps, augment=[A.Resize(32, 32)]))


def test_steps_are_saved_and_loaded(tmp_path: Any) -> None:
    plan = plan_for(augment=[A.Resize(32, 32)])
    plan.save(tmp_path / "plan.yaml")
    again = Plan.load(tmp_path / "plan.yaml")
    assert again.progressive_size == plan.progressive_size
    assert Plan(**plan.dump()) == plan
