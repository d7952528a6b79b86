"""A policy in one DALI graph: nothing leaves the GPU, unsupported files fall back, pixels agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
from lightwell.pipeline.compiler.routing import find_routes
from lightwell.pipeline.executor.dali import graph_transforms
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.pipeline.transform.dali.graph import LoweredGraph
from lightwell.pipeline.transform.params import ParamSampler
from pictures import make_folder, make_picture
from PIL import Image

POLICY = [
    A.RandomResizedCrop((48, 56)),
    A.HorizontalFlip(),
    A.OneOf([A.GaussianBlur(p=0.5), A.MotionBlur(p=0.5)], p=0.5),
    A.SomeOf([A.Rotate(), A.RandomBrightnessContrast(), A.CoarseDropout()], n=2),
]
ON_THE_HOST = {"Split", "ValidateLogical", "Not_", "ArithmeticGenericOp", "TensorSubscript", "Slice"}
"""Operators on flags, matrices and other arguments."""


def test_between_decoding_and_the_batch_nothing_leaves_the_gpu() -> None:
    param_sampler = ParamSampler(A.Compose(POLICY), len(POLICY))
    transforms = graph_transforms(param_sampler, 7)
    graph = LoweredGraph(transforms, source="encoded", device="gpu", max_batch_size=4)
    graph.placements()
    touching: set[str] = set()
    for node in graph._pipeline._ops:
        takes_pictures = any(one.name in touching for one in node.inputs)
        if "ImageSlice" in node.name or takes_pictures:
            assert node.spec.OutputDevice(0) == "gpu", node.name
            touching |= {one.name for one in node.outputs}
    last = graph._pipeline._ops[-1]
    assert any("ImageSlice" in name for name in touching)
    assert last.outputs[0].name in touching


def batches(index: Path, backend: str, augment: list[Any]) -> list[Any]:
    plan = Plan.model_validate(
        {"index": index, "augment": augment, "batch": {"size": 7}, "seed": 5, "decode": "exact"}
    )
    engine = LocalEngine(num_threads=2, backend=backend)  # type: ignore[arg-type]
    with engine.feed(plan, View(shuffle=True, augment=True, num_epochs=2)) as feed:
        return list(feed)


def largest_difference(index: Path, augment: list[Any]) -> int:
    pairs = zip(batches(index, "opencv", augment), batches(index, "dali", augment), strict=True)
    worst = 0
    for one, other in pairs:
        assert one.keys == other.keys
        worst = max(worst, int(np.abs(one.images.numpy().astype(int) - other.images.numpy()).max()))
    return worst


def test_a_policy_in_one_graph_gives_the_batches_of_opencv(index_path: Path) -> None:
    assert largest_difference(index_path, POLICY) <= 4  # up to a level of each of four steps


def test_transforms_after_the_graph_use_the_same_params(index_path: Path) -> None:
    behind = [
        A.RandomResizedCrop((48, 56)),
        A.RandomFog(p=0.5),
        A.HorizontalFlip(),
        A.HEStain(p=0),
        A.VerticalFlip(),
    ]
    assert largest_difference(index_path, behind) <= 2


def test_files_that_dali_does_not_support_are_processed_by_the_cpu_stage(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", num_images=6)
    palette = Image.fromarray(make_picture(3, 90, 120)).quantize(16)
    palette.save(folder / "cat" / "palette.png")
    index = tmp_path / "index.parquet"
    build_index(folder, fractions={"train": 1.0}).save(index)
    assert largest_difference(index, [A.RandomResizedCrop((48, 56)), A.HorizontalFlip()]) <= 1


LONG_POLICIES = {
    "of deep transforms": ([*[A.ColorJitter(p=0)] * 6, A.HorizontalFlip()], 3),
    "of many transforms": ([A.HorizontalFlip(p=0.4), A.VerticalFlip(p=0.4)] * 200, 115),
    "in one composition": ([A.OneOf([A.Rotate()] * 200, p=0.5), A.HorizontalFlip()], 0),
}


@pytest.mark.parametrize("case", LONG_POLICIES)
def test_what_does_not_fit_into_one_graph_runs_after_it_and_yields_the_same_pictures(
    index_path: Path, case: str
) -> None:
    long, num_lowered = LONG_POLICIES[case]
    augment = [A.RandomResizedCrop((48, 56)), *long]
    routes = find_routes(augment, backend="dali", device="cpu", approximate=False)
    assert routes.num_lowered == 1 + num_lowered
    assert routes.routes[1 + num_lowered].reason == "a DALI graph has at most 700 operators in sequence"
    assert largest_difference(index_path, augment) <= 1


@pytest.mark.gpu
def test_on_a_gpu_batches_stay_there_and_agree(index_path: Path) -> None:
    plan = Plan.model_validate({"index": index_path, "augment": POLICY, "seed": 5, "device": "gpu"})
    reference = Plan.model_validate({"index": index_path, "augment": POLICY, "seed": 5, "decode": "exact"})
    view = View(augment=True)
    with LocalEngine().feed(plan, view) as ours, LocalEngine().feed(reference, view) as theirs:
        for one, other in zip(ours, theirs, strict=True):
            assert one.images.device.type == "cuda"
            assert np.abs(one.images.cpu().numpy().astype(int) - other.images.numpy()).max() <= 8
