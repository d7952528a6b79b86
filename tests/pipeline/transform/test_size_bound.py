"""Image sizes within every policy are bounded before sampling."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
from lightwell import LocalEngine, Plan, View, build_index
from lightwell.pipeline.executor import sample_worker
from lightwell.pipeline.transform.params import ParamSampler
from lightwell.pipeline.transform.size_bound import SizeBound, largest_pixels
from pictures import make_picture, write_picture

BOUNDED: dict[str, list[Any]] = {
    "resize": [A.Resize(300, 400)],
    "crop": [A.RandomResizedCrop((224, 224)), A.HorizontalFlip()],
    "sized crop": [A.RandomSizedCrop((5, 8), (300, 300))],
    "smallest side": [A.SmallestMaxSize(256), A.CenterCrop(8, 8)],
    "smallest of some": [A.SmallestMaxSize([32, 512])],
    "largest side": [A.HorizontalFlip(), A.LongestMaxSize(500)],
    "choice": [A.OneOf([A.Resize(10, 10), A.Resize(500, 500), A.NoOp()], p=0.5), A.RandomRotate90()],
    "seldom": [A.Resize(600, 600, p=0.1), A.Resize(8, 8)],
    "warps": [A.Affine(scale=(0.5, 2.0)), A.Perspective(), A.GridDistortion(), A.Rotate(), A.D4()],
    "values": [A.Blur(), A.RandomCrop(4, 4), A.CoarseDropout()],
}
OPEN: dict[str, list[Any]] = {
    "padded": [A.PadIfNeeded(700, 700)],
    "divisor": [
        A.PadIfNeeded(min_height=None, min_width=None, pad_height_divisor=512, pad_width_divisor=512)
    ],
    "pad": [A.Pad(300)],
    "scaled": [A.RandomScale((2.0, 9.0), p=1.0)],
    "scaled later": [A.RandomCrop(2, 6), A.SmallestMaxSize(600)],
    "crop and pad": [A.CropAndPad(px=200, keep_size=False)],
    "fitted": [A.Affine(scale=(4.0, 4.0), fit_output=True, p=1.0)],
    "crop that pads": [A.CenterCrop(500, 500, pad_if_needed=True)],
}


def peaks(policy: Sequence[Any], size: tuple[int, int]) -> list[int]:
    """Return the largest pixels of some samples, input included."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        param_sampler = ParamSampler(A.Compose(policy), len(policy))
    return [max(largest_pixels(param_sampler.sample(bits, size)), size[0] * size[1]) for bits in range(20)]


@pytest.mark.parametrize("name", list(BOUNDED))
@pytest.mark.parametrize("size", [(16, 16), (64, 9), (20, 900), (300, 200)])
def test_no_sampled_size_exceeds_the_bound(name: str, size: tuple[int, int]) -> None:
    size_bound = SizeBound.of(A.Compose(BOUNDED[name]).transforms)
    assert not size_bound.needs_sampling
    assert max(peaks(BOUNDED[name], size)) <= size_bound.pixels(size)


@pytest.mark.parametrize("name", list(OPEN))
def test_policies_without_a_fixed_bound_need_sampling(name: str) -> None:
    assert SizeBound.of(A.Compose(OPEN[name]).transforms).needs_sampling
    assert max(peaks(OPEN[name], (16, 16))) > 16 * 16


@pytest.mark.parametrize(
    "name", ["resize", "smallest side", "largest side", "padded", "scaled", "crop that pads"]
)
def test_runs_of_small_files_are_split_by_their_grown_size(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        write_picture(tmp_path / "photos" / f"{number}.png", make_picture(number, 16, 16))
    build_index(tmp_path / "photos").save(tmp_path / "index.parquet")
    sizes: list[int] = []
    split = sample_worker.split_by_bytes

    def watched(items: Sequence[Any], num_bytes: Any, most: int) -> Any:
        sizes.extend(num_bytes(number) for number in range(len(items)))
        return split(items, num_bytes, most)

    monkeypatch.setattr(sample_worker, "split_by_bytes", watched)
    policy = {**BOUNDED, **OPEN}[name]
    plan = Plan(index=tmp_path / "index.parquet", augment=[*policy, A.Resize(8, 8)], batch={"size": 4})
    with LocalEngine(num_threads=1).feed(plan, View(augment=True)) as feed:
        assert sum(len(batch) for batch in feed) == 8
    least = 3 * (min(peaks(policy, (16, 16))) if name != "smallest side" else 256 * 256)
    assert len(sizes) == 8
    assert all(np.array(sizes) >= least)
