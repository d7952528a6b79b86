"""A policy means in a plan what it means in Albumentations, whether it is given as an object or as a file."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightwell.pipeline.compiler.routing import find_routes
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.policy.from_objects import differing_attributes
from lightwell.pipeline.policy.registry import UNSUPPORTED, is_composition_class, transform_classes
from lightwell.pipeline.rng import numpy_generator, python_random
from lightwell.pipeline.transform.params import ParamSampler
from pictures import make_picture
from policies import policies
from transforms import USABLE, transforms_of

BOXES = np.array([[5, 8, 40, 50], [60, 20, 90, 80], [0, 0, 4, 4]], np.float32)
POINTS = np.array([[10, 12], [70, 60], [33, 90]], np.float32)
NOT_REPEATED = ("must be within [-0.5, 0.5] for tuple inputs", "which loses", "expected up to 8 bits")
"""Ranges that Albumentations makes of a negative number or of a hue and does not take itself, or cannot apply."""


def quietly(make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def compose(transforms: list[Any]) -> Any:
    boxes = A.BboxParams("pascal_voc", label_fields=["box_rows"], clip=True)
    points = A.KeypointParams("xy", label_fields=["point_rows"], remove_invisible=False)
    return quietly(lambda: A.Compose(transforms, bbox_params=boxes, keypoint_params=points))


def sample(number: int) -> dict[str, Any]:
    image = make_picture(number % 7, 120, 160)
    mask = (image[..., 0] > 128).astype(np.uint8)
    rows = {"box_rows": np.arange(len(BOXES)), "point_rows": np.arange(len(POINTS))}
    return {"image": image, "mask": mask, "bboxes": BOXES, "keypoints": POINTS, **rows}


def run_albumentations(transforms: list[Any], number: int) -> dict[str, Any]:
    pipeline = compose(transforms)
    pipeline.set_random_state(numpy_generator(number), python_random(number))
    result: dict[str, Any] = pipeline(**sample(number))
    return result


def run_lightwell(plan: Plan, number: int) -> dict[str, Any]:
    pipeline = compose([spec.build("augment") for spec in plan.augment])
    routes = find_routes(pipeline.transforms, backend="opencv", device="cpu", approximate=False)
    param_sampler = ParamSampler(pipeline, routes.num_sampled)
    targets = sample(number)
    image = targets.pop("image")
    sampled = param_sampler.sample(number, image.shape[:2], **targets)
    return param_sampler.finish(param_sampler.apply(image, sampled.calls), sampled)


def saved_plans(policy: Any, folder: Path) -> list[Plan]:
    A.save(policy, folder / "policy.json")
    A.save(policy, folder / "policy.yaml", data_format="yaml")
    plan = Plan(index="i", augment=policy)
    return [
        plan,
        Plan(index="i", augment={"file": str(folder / "policy.json")}),
        Plan(index="i", augment={"file": str(folder / "policy.yaml")}),
        Plan.model_validate(yaml.safe_load(yaml.safe_dump(plan.dump()))),
    ]


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")  # Albumentations, of empty boxes
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=policies(),
    second=policies(),
    p=st.sampled_from([0.4, 1.0]),
    number=st.integers(0, 10**6),
    interpolation=st.sampled_from([None, cv2.INTER_LINEAR]),
)
def test_a_random_policy_gives_the_same_images_and_annotations_in_every_form(
    first: list[Any], second: list[Any], p: float, number: int, interpolation: int | None, tmp_path: Path
) -> None:
    inner = quietly(lambda: A.Compose(second, p=0.6)) if second else A.NoOp()
    policy = quietly(lambda: A.Compose([*first, inner], p=p, mask_interpolation=interpolation))
    plans = saved_plans(policy, tmp_path)
    expected = run_albumentations(policy.transforms if p == 1 else [policy], number)
    assert all(plan.augment == plans[0].augment for plan in plans)
    found = run_lightwell(plans[0], number)
    for name in ("image", "mask", "bboxes", "keypoints", "box_rows", "point_rows"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize("name", USABLE)
def test_every_transform_comes_back_from_a_plan_and_from_a_file(name: str, tmp_path: Path) -> None:
    kept = []

    @settings(max_examples=5, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(transform=transforms_of(name))
    def check(transform: Any) -> None:
        policy = quietly(lambda: A.Compose([transform]))
        try:
            plans = saved_plans(policy, tmp_path)
        except PlanError as error:
            if name in str(error) and any(reason in str(error) for reason in NOT_REPEATED):
                return
            raise
        kept.append(transform)
        for plan in plans:
            assert differing_attributes(transform, plan.augment[0].build("augment")) == []
            assert plan.augment == plans[0].augment

    check()
    assert kept


def test_the_classes_that_are_covered_are_all_but_those_that_are_refused_by_name() -> None:
    known = transform_classes()
    compositions = {name for name, cls in known.items() if is_composition_class(cls)}
    covered = f"{len(USABLE)} of {len(known) - len(compositions)} transforms are covered; refused by name:"
    sys.stdout.write(
        "\n".join([covered, *(f"  {name}: {reason}" for name, reason in UNSUPPORTED.items()), ""])
    )
    assert set(USABLE) == known.keys() - compositions - UNSUPPORTED.keys()
    assert len(USABLE) > 100


COMPOSITIONS = [
    A.OneOf([A.HorizontalFlip(p=0.2), A.Blur(p=0.7)], p=0.4),
    A.OneOrOther(A.HorizontalFlip(), A.Blur(), p=0.3),
    A.SomeOf([A.HorizontalFlip(), A.Blur(), A.Rotate()], n=2, replace=True, p=0.9),
    A.RandomOrder([A.HorizontalFlip(), A.Blur()], n=2, p=0.8),
    A.Sequential([A.HorizontalFlip(), A.OneOf([A.Blur()])], p=0.7),
    A.SelectiveChannelTransform([A.Blur(p=1)], channels=[0, 2], p=0.6),
    A.Compose([A.HorizontalFlip(), A.Compose([A.Blur()], p=0.2)], p=0.3),
]


@pytest.mark.parametrize("composition", COMPOSITIONS, ids=lambda one: type(one).__name__)
def test_every_composition_comes_back(composition: Any) -> None:
    plan = Plan(index="i", augment=[composition])
    again = Plan.model_validate(yaml.safe_load(yaml.safe_dump(json.loads(json.dumps(plan.dump())))))
    assert again == plan
    assert differing_attributes(composition, again.augment[0].build("augment")) == []


def ignored_option() -> Any:
    return quietly(lambda: A.Rotate(limits=3))


def changed_weights() -> Any:
    policy = A.OneOf([A.Blur(p=0.5), A.HorizontalFlip(p=0.5)])
    policy.transforms[0].p = 0.9
    return policy


def derived(name: str) -> Any:
    cls = type(name, (A.HorizontalFlip,), {"__module__": "albumentations"})
    return cls(p=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: A.Compose([A.Blur()], seed=5), "seed: .*plan's key 'seed'"),
        (lambda: A.Compose([A.Blur()], additional_targets={"image2": "image"}), "additional_targets: "),
        (lambda: A.Compose([A.Blur()], save_applied_params=True), "save_applied_params: "),
        (lambda: A.ReplayCompose([A.Blur()]), "ReplayCompose: "),
        (lambda: A.Compose([A.Lambda(name="named", image=np.flip)]), "Lambda: it calls functions"),
        (lambda: A.Compose([A.Equalize(mask=np.ones((4, 4), np.uint8), p=1)]), "mask|Equalize"),
        (lambda: A.FDA([np.zeros((4, 4, 3), np.uint8)], read_fn=np.asarray), "FDA: it needs reference"),
        (ignored_option, "'limits', which it ignored"),
        (changed_weights, "loses transforms_ps"),
        (lambda: derived("Flipped"), "importable|imported by its name"),
    ],
)
def test_unsupported_transforms_are_rejected_by_name(make: Callable[[], Any], message: str) -> None:
    policy = quietly(make)
    with pytest.raises(PlanError, match=message):
        Plan(index="i", augment=policy)


def of_file(tmp_path: Path, transform: dict[str, Any], version: str = A.__version__) -> Plan:
    content = {"__version__": version, "transform": transform}
    (tmp_path / "policy.json").write_text(json.dumps(content))
    return Plan(index="i", augment={"file": str(tmp_path / "policy.json")})


@pytest.mark.parametrize(
    ("transform", "version", "message"),
    [
        (
            {"__class_fullname__": "Rotate", "limit": [45, 45], "p": 1, "value": 3},
            "1.3.1",
            "Rotate.value: no such",
        ),
        (
            {"__class_fullname__": "Blur", "blur_limit": [3, 7], "p": 1, "always_apply": True},
            "1.3.1",
            "always_apply",
        ),
        ({"__class_fullname__": "Downscale", "p": 1}, "1.4.0", "without .*scale_range"),
        ({"__class_fullname__": "Lambda", "__name__": "mine"}, A.__version__, "Lambda: it calls functions"),
        ({"__class_fullname__": "evil.HorizontalFlip", "p": 1}, A.__version__, "--allow-import evil"),
        (
            {"__class_fullname__": "Compose", "transforms": [], "additional_targets": {"a": "image"}},
            "2.0.8",
            "additional",
        ),
        ({"__class_fullname__": "Compose", "transforms": [], "colour": 1}, "2.0.8", "colour"),
        (
            {"__class_fullname__": "Blur", "transforms": [{"__class_fullname__": "Blur"}]},
            "2.0.8",
            "transforms",
        ),
        ({"__class_fullname__": 5}, "2.0.8", "__class_fullname__"),
        ({"__class_fullname__": "OneOf", "transforms": 5, "p": 1}, "2.0.8", "transforms"),
    ],
)
def test_a_file_with_a_different_meaning_is_rejected(
    transform: dict[str, Any], version: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=message):
        of_file(tmp_path, transform, version)


def test_an_old_file_with_the_same_meaning_is_read(tmp_path: Path) -> None:
    old = {
        "__class_fullname__": "albumentations.augmentations.transforms.HorizontalFlip",
        "always_apply": False,
        "p": 0.25,
    }
    plan = of_file(tmp_path, {"__class_fullname__": "Compose", "p": 1.0, "transforms": [old]}, "1.3.1")
    assert [spec.dump() for spec in plan.augment] == [{"HorizontalFlip": {"p": 0.25}}]


@pytest.mark.parametrize(
    "params",
    [
        {"min_area": 9},
        {"min_visibility": 0.3},
        {"min_width": 2},
        {"min_height": 2},
        {"max_accept_ratio": 3.0},
    ],
    ids=str,
)
def test_box_params_of_a_policy_are_rejected_instead_of_dropped(
    params: dict[str, Any], tmp_path: Path
) -> None:
    policy = A.Compose([A.HorizontalFlip()], bbox_params=A.BboxParams("coco", label_fields=["x"], **params))
    A.save(policy, tmp_path / "policy.json")
    for written in (policy, {"file": str(tmp_path / "policy.json")}):
        with pytest.raises(PlanError, match=f"bbox_params.*{next(iter(params))}"):
            Plan(index="i", augment=written)


def test_keypoint_params_of_a_policy_are_rejected_instead_of_dropped() -> None:
    removes = A.Compose([A.HorizontalFlip()], keypoint_params=A.KeypointParams("xy"))
    with pytest.raises(PlanError, match=r"keypoint_params.remove_invisible: .*plan's key 'keypoint_params'"):
        Plan(index="i", augment=removes)
    keeps = A.Compose([A.HorizontalFlip()], keypoint_params=A.KeypointParams("xy", remove_invisible=False))
    assert [spec.name for spec in Plan(index="i", augment=keeps).augment] == ["HorizontalFlip"]
