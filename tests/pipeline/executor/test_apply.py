"""The fast path over cached images is bit-identical to Albumentations and never writes to shared memory."""

from __future__ import annotations

from typing import Any

import albumentations as A
import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from lightwell.pipeline.executor.apply import TransformApplier
from lightwell.pipeline.rng import ReseedableGenerator, derive_seed, numpy_generator, python_random
from lightwell.pipeline.transform.params import ParamSampler
from pictures import make_picture
from policies import leaves

SIZES = st.sampled_from([(24, 32), (48, 48), (64, 64), (90, 70)])


def crops() -> st.SearchStrategy[Any]:
    kinds = st.sampled_from([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST, cv2.INTER_AREA])
    scales = st.sampled_from([(0.08, 1.0), (1.0, 1.0)])
    area = st.sampled_from([None, "image", "image_mask"])
    return st.builds(A.RandomResizedCrop, SIZES, scale=scales, interpolation=kinds, area_for_downscale=area)


def flips() -> st.SearchStrategy[Any]:
    return st.one_of(st.builds(A.HorizontalFlip, p=st.just(0.6)), st.builds(A.VerticalFlip, p=st.just(0.6)))


POLICIES = st.lists(st.one_of(crops(), flips(), st.builds(A.Transpose), leaves()), min_size=1, max_size=5)


@settings(max_examples=150)
@given(POLICIES, st.integers(0, 2**64), SIZES)
def test_results_equal_albumentations_and_inputs_stay_unchanged(
    policy: list[Any], seed: int, size: tuple[int, int]
) -> None:
    param_sampler = ParamSampler(A.Compose(policy), len(policy))
    direct = TransformApplier(param_sampler)
    images = [make_picture(number, *size) for number in range(3)]
    sampled = [param_sampler.sample(seed + number, size).calls for number in range(3)]
    try:
        expected = [
            param_sampler.apply(image.copy(), one) for image, one in zip(images, sampled, strict=True)
        ]
    except (ValueError, cv2.error):  # too small for a transform; quarantined either way
        return
    shared = [image.copy() for image in images]
    for image in shared:
        image.flags.writeable = False
    for _ in range(2):  # reused memory holds old content
        found = [
            direct.apply(n, image, one) for n, (image, one) in enumerate(zip(shared, sampled, strict=True))
        ]
        for mine, reference in zip(found, expected, strict=True):
            assert np.array_equal(mine, reference)
    places = [
        np.empty((*one.size, 3), np.uint8) for one in (param_sampler.sample(seed + n, size) for n in range(3))
    ]
    for number, (image, one, reference) in enumerate(zip(shared, sampled, expected, strict=True)):
        found = direct.apply(number, image, one, places[number])
        assert np.array_equal(found, reference)
        if one and type(param_sampler.transform_at(one[-1].transform_index)).__name__ in (
            "HorizontalFlip",
            "VerticalFlip",
        ):
            assert found is places[number]
    for image, original in zip(shared, images, strict=True):
        assert np.array_equal(image, original)


@given(st.lists(st.integers(0, 2**128 - 1), min_size=1, max_size=4), st.integers(0, 5))
def test_reseeded_generators_equal_new_ones(keys: list[int], used: int) -> None:
    reseedable = ReseedableGenerator()
    for bits in keys:
        generator, chance = reseedable.reseed(bits)
        fresh, plain = numpy_generator(bits), python_random(bits)
        for _ in range(used):
            assert generator.integers(0, 2**31, dtype=np.uint32) == fresh.integers(0, 2**31, dtype=np.uint32)
            assert generator.normal() == fresh.normal()
            assert chance.gauss(0, 1) == plain.gauss(0, 1)
            assert chance.random() == plain.random()
        assert chance.getstate() == plain.getstate()
        assert repr(generator.bit_generator.state) == repr(fresh.bit_generator.state)


def test_sampled_params_do_not_depend_on_earlier_samples() -> None:
    param_sampler = ParamSampler(A.Compose([A.RandomResizedCrop((48, 48)), A.GaussNoise(p=1.0)]), 2)
    first, second = (derive_seed("augment", 0, 0, name) for name in "ab")
    alone = repr(param_sampler.sample(first, (64, 80)).calls)
    param_sampler.sample(second, (64, 80))
    assert repr(param_sampler.sample(first, (64, 80)).calls) == alone
