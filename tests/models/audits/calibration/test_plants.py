"""Planted marks change the pixels of their mask only, cover the stated share, and depend on seed and key alone."""

from __future__ import annotations

import numpy as np
import pytest
from lightwell.models.audits.calibration.plants import KINDS, LOCAL, Kind, Mark

AREAS = (0.01, 0.1)


def picture(height: int = 96, width: int = 128) -> np.ndarray:
    return np.random.default_rng(0).integers(60, 200, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("area", AREAS)
@pytest.mark.parametrize("kind", LOCAL)
def test_a_local_mark_changes_its_mask_only_and_covers_its_area(kind: Kind, area: float) -> None:
    image = picture(384, 512)
    marked = Mark(kind, area).plant(image, 0, "a")
    changed = (marked.image != image).any(axis=2)
    assert not (changed & ~marked.mask).any()
    assert changed.sum() > 0.9 * marked.mask.sum()
    assert marked.mask.mean() == pytest.approx(area, rel=0.2)
    assert marked.image.shape == image.shape
    assert marked.image.dtype == np.uint8


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(LOCAL)))
def test_a_mark_without_a_place_grows_with_its_opacity(kind: Kind) -> None:
    image = picture()
    weak, strong = (
        np.abs(Mark(kind, opacity=opacity).plant(image, 0, "a").image.astype(int) - image).mean()
        for opacity in (0.2, 0.9)
    )
    assert 0 < weak < strong


@pytest.mark.parametrize("kind", ["text", "logo"])
def test_a_transparent_mark_is_a_mixture(kind: Kind) -> None:
    image = picture()
    full, half = (Mark(kind, 0.05, opacity).plant(image, 0, "a") for opacity in (1.0, 0.5))
    mixed = (full.image.astype(float) + image)[full.mask] / 2
    assert np.abs(half.image[full.mask] - mixed).max() <= 1


def test_positions_are_fixed_jittered_around_it_or_anywhere() -> None:
    def centres(position: str) -> np.ndarray:
        mark = Mark("logo", 0.01, position=position)  # type: ignore[arg-type]
        masks = [mark.plant(picture(), 1, str(key)).mask for key in range(40)]
        return np.array([np.mean(np.nonzero(mask), axis=1) for mask in masks])

    fixed, jittered, anywhere = (centres(position) for position in ("fixed", "jittered", "random"))
    assert np.ptp(fixed, axis=0).max() == 0
    assert 0 < np.abs(jittered - fixed).max() <= 0.06 * 128 + 1
    assert np.ptp(anywhere, axis=0).min() > 60
    assert np.array_equal(anywhere, centres("random"))


@pytest.mark.parametrize("size", [(16, 16), (17, 300)])
@pytest.mark.parametrize("kind", KINDS)
def test_small_and_narrow_images_can_be_marked(kind: Kind, size: tuple[int, int]) -> None:
    image = picture(*size)
    before = image.copy()
    marked = Mark(kind, 0.002).plant(image, 0, "a")
    assert marked.image.shape == image.shape
    assert marked.mask.any()
    assert np.array_equal(image, before)
