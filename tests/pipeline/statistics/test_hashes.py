"""Hashes are exact, stay near under compression and resizing, and one is equal for the eight orientations."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import scipy.fft
from lightwell.pipeline.statistics.hashes import dct, hash_measures
from lightwell.pipeline.statistics.image_measures import image_measures

from .conftest import make_scene

if TYPE_CHECKING:
    from numpy.typing import NDArray


def bits_between(one: bytes, other: bytes) -> int:
    """Count the bits in which two hashes differ."""
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def orientations(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Return the eight turns and mirror images."""
    return [np.rot90(side, turns) for side in (image, image[:, ::-1]) for turns in range(4)]


def test_coefficients_agree_with_scipy() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    expected = scipy.fft.dctn(image.astype(float))[:8, :8] / 4
    assert dct(image) / 4096**2 == pytest.approx(expected, abs=1)


def test_the_invariant_hash_is_exactly_equal_for_the_eight_orientations() -> None:
    for seed in range(20):
        image = np.random.default_rng(seed).integers(0, 256, (32, 32), np.uint8)
        hashes = {hash_measures(turned)["phash_invariant"] for turned in orientations(image)}
        assert len(hashes) == 1
    symmetric = image[:16, :16]
    symmetric = np.block([[symmetric, symmetric[:, ::-1]], [symmetric[::-1], symmetric[::-1, ::-1]]])
    assert len({hash_measures(turned)["phash_invariant"] for turned in orientations(symmetric)}) == 1


@pytest.mark.parametrize("size", [(96, 128), (301, 213)])
def test_the_invariant_hash_finds_turned_scenes_and_the_plain_hash_does_not(size: tuple[int, int]) -> None:
    scene = make_scene(*size)
    original = image_measures(scene)
    found = [image_measures(turned) for turned in orientations(scene)[1:]]
    assert max(bits_between(one["phash_invariant"], original["phash_invariant"]) for one in found) <= 3
    assert min(bits_between(one["phash"], original["phash"]) for one in found) > 11


def test_copies_are_near_and_other_scenes_far() -> None:
    scenes = [make_scene(120, 160, seed) for seed in range(12)]
    for scene in scenes:
        original = image_measures(scene)
        compressed = cv2.imdecode(
            cv2.imencode(".jpg", scene, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_COLOR
        )
        for copy in (
            compressed,
            cv2.resize(scene, (80, 60), interpolation=cv2.INTER_AREA),
            cv2.resize(scene, (300, 225)),
        ):
            found = image_measures(np.asarray(copy, np.uint8))
            for name in ("phash", "dhash"):
                assert bits_between(found[name], original[name]) <= 8, name
    hashes = [image_measures(scene) for scene in scenes]
    for name in ("phash", "phash_invariant", "dhash"):
        assert (
            min(bits_between(one[name], other[name]) for one, other in itertools.combinations(hashes, 2)) > 8
        )
