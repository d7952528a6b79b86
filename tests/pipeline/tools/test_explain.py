"""The steps of `lightwell explain` match what a run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import albumentations as A
import pytest
from lightwell.pipeline.compiler.program import Program
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.tools.costs import measure_costs
from lightwell.pipeline.tools.explain import Step, explain


def steps(**plan: Any) -> dict[str, Step]:
    program = Program.compile(Plan.model_validate({"index": "i", **plan}))
    return {step.name: step for step in explain(program, None)}


def test_a_crop_at_the_start_is_fused_into_decoding() -> None:
    found = steps(augment=[A.RandomResizedCrop((64, 64)), A.HorizontalFlip()])
    assert "only the region kept by RandomResizedCrop, JPEGs at 1/2" in found["Decode"].note
    assert found["RandomResizedCrop"].runs_in == "decoding, OpenCV"
    assert found["HorizontalFlip"].runs_in == "OpenCV"


def test_exact_decoding_is_listed() -> None:
    found = steps(decode="exact", augment=[A.RandomResizedCrop((64, 64))])
    assert "1/2" not in found["Decode"].note


@pytest.mark.parametrize(
    "first", [A.HorizontalFlip(), A.RandomCrop(64, 64, p=0.5), A.OneOf([A.RandomCrop(64, 64)])]
)
def test_a_crop_after_another_transform_or_with_p_below_1_is_not_fused(first: Any) -> None:
    found = steps(augment=[first, A.RandomResizedCrop((64, 64))])
    assert found["Decode"].note.startswith("full images: the policy does not start with a crop or resize")


def test_transforms_that_need_pixels_give_the_reason_and_later_ones_stay_behind_them() -> None:
    found = steps(augment=[A.HorizontalFlip(), A.HEStain(), A.VerticalFlip()])
    assert (found["HEStain"].runs_in, found["VerticalFlip"].runs_in) == ("Albumentations", "Albumentations")
    assert "HEStain computes parameters from pixels" in found["HEStain"].note
    assert "after HEStain" in found["VerticalFlip"].note


def test_a_custom_class_runs_in_albumentations() -> None:
    found = steps(preprocess=["lightwell.pipeline.policy.color:ToHSV"])
    name = "lightwell.pipeline.policy.color:ToHSV"
    assert found[name].runs_in == "Albumentations"
    assert "ToHSV is a custom class" in found[name].note


def test_on_a_gpu_the_lowered_head_runs_in_dali_and_the_rest_gives_the_reason() -> None:
    found = steps(device="gpu", augment=[A.RandomResizedCrop((64, 64)), A.RandomFog(), A.HorizontalFlip()])
    assert found["RandomResizedCrop"].runs_in == "decoding, DALI gpu"
    assert found["RandomFog"].runs_in == "OpenCV"
    assert "RandomFog" in found["RandomFog"].note
    assert "after RandomFog" in found["HorizontalFlip"].note


def test_the_possible_cache_position_is_after_the_last_deterministic_step() -> None:
    found = steps(preprocess=[A.SmallestMaxSize(64), A.CenterCrop(60, 60)], augment=[A.HorizontalFlip()])
    assert [name for name, step in found.items() if "cache" in step.note] == ["CenterCrop"]


def test_evaluation_steps_are_listed_beside_training_steps() -> None:
    found = steps(augment=[A.RandomResizedCrop((64, 64))], evaluate=[A.Resize(64, 64)])
    assert "training views only" in found["RandomResizedCrop"].note
    assert "other views only" in found["Resize"].note


def test_shares_of_the_cost_are_measured_and_add_up(index_path: Path) -> None:
    plan = Plan.model_validate(
        {
            "index": index_path,
            "preprocess": [A.Resize(64, 64), A.Normalize()],
            "augment": [A.HEStain(p=1), A.HorizontalFlip()],
        }
    )
    program = Program.compile(plan)
    costs = measure_costs(program, plan.load_index())
    assert costs is not None
    shares = {step.name: step.cost_share for step in explain(program, costs)}
    assert sum(share for share in shares.values() if share is not None) == pytest.approx(1)
    assert shares["HEStain"] is not None
    assert shares["HEStain"] > shares["HorizontalFlip"]  # type: ignore[operator]


def test_costs_are_not_measured_for_a_gpu(index_path: Path) -> None:
    plan = Plan(index=index_path, device="gpu")
    assert measure_costs(Program.compile(plan), plan.load_index()) is None


def test_sampling_is_listed_first() -> None:
    assert "Sampling" not in steps()
    assert next(iter(steps(sampling="balanced"))) == "Sampling"
    assert steps(sampling={"weights": {"cat": 2, "dog": 0.5}})["Sampling"].options == "cat=2, dog=0.5"


def test_annotation_filters_are_listed_unless_they_are_the_defaults() -> None:
    plain = explain(Program.compile(Plan(index=Path("i.parquet"))), None)
    assert "Annotations" not in [step.name for step in plain]
    plan = Plan(
        index=Path("i.parquet"), bbox_params={"min_area": 9}, keypoint_params={"remove_invisible": True}
    )
    (step,) = (step for step in explain(Program.compile(plan), None) if step.name == "Annotations")
    assert step.options == "min_area=9, remove_invisible=True"
