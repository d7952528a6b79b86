"""Each measure agrees with a slow replica, of scikit-image where there is one, and follows the defect that it measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import skimage.color
import skimage.feature
import skimage.measure
import skimage.transform
from lightwell.pipeline.statistics.defects import blockiness, defect_measures, softness
from lightwell.pipeline.statistics.image_measures import image_measures
from lightwell.pipeline.statistics.spectrum import spectrum_measures
from lightwell.pipeline.statistics.texture import cooccurrence, glcm_measures, lbp_histogram
from lightwell.pipeline.statistics.tones import color_measures
from lightwell.pipeline.statistics.working_copies import WorkingCopies, make_working_copies
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray


def luma(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return BT.601 luma, rounded."""
    return np.rint(image @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


def test_tones_agree_with_numpy(small_scene: NDArray[np.uint8]) -> None:
    found, gray = image_measures(small_scene), luma(small_scene)
    assert found["brightness"] == pytest.approx(gray.mean(), abs=0.01)
    assert found["contrast"] == pytest.approx(gray.std(), abs=0.01)
    assert found["share_dark"] == pytest.approx((gray <= 5).mean(), abs=1e-3)
    assert found["share_light"] == pytest.approx((gray >= 250).mean(), abs=1e-3)
    for percent in (1, 5, 50, 95, 99):
        expected = np.percentile(gray, percent, method="inverted_cdf")
        assert abs(found[f"brightness_p{percent}"] - int(expected)) <= 1
    assert found["entropy"] == pytest.approx(skimage.measure.shannon_entropy(gray), abs=0.01)
    linear = skimage.color.rgb2xyz(np.repeat(gray[..., None], 3, axis=2))[..., 1]
    assert found["exposure"] == pytest.approx(np.log2(linear.mean() / 0.18), abs=1e-3)
    assert found["histogram"] == pytest.approx(np.histogram(gray, 16, (0, 256))[0] / gray.size, abs=2e-3)


def test_channels_and_colors_agree_with_numpy(small_scene: NDArray[np.uint8]) -> None:
    found = image_measures(small_scene)
    pixels = small_scene.reshape(-1, 3).astype(float)
    assert [found[f"mean_{name}"] for name in "rgb"] == pytest.approx(pixels.mean(axis=0))
    assert [found[f"std_{name}"] for name in "rgb"] == pytest.approx(pixels.std(axis=0))
    red, green, blue = pixels.T
    first, second = red - green, (red + green) / 2 - blue
    expected = np.hypot(first.std(), second.std()) + 0.3 * np.hypot(first.mean(), second.mean())
    assert found["colorfulness"] == pytest.approx(expected)
    assert found["white_balance_red"] == pytest.approx(np.log2((red.mean() + 1) / (green.mean() + 1)))
    saturation = skimage.color.rgb2hsv(small_scene)[..., 1]
    assert color_measures(small_scene)["saturation"] == pytest.approx(saturation.mean(), abs=0.005)


def test_the_laplacian_and_noise_agree_with_scipy(small_scene: NDArray[np.uint8]) -> None:
    copies = make_working_copies(small_scene)
    gray = copies.tiles[0].astype(int)
    found = defect_measures(copies)
    laplacian = ndimage.laplace(gray)[1:-1, 1:-1]
    assert found["sharpness"] == pytest.approx(laplacian.var())
    kernel = np.outer([1, -2, 1], [1, -2, 1])
    response = np.abs(ndimage.convolve(gray, kernel)[1:-1, 1:-1])
    assert found["noise"] == pytest.approx(np.median(response) / 0.6745 / 6, abs=0.13)
    assert found["least_noise"] == found["noise"]


def test_softness_is_the_ratio_of_a_variogram_at_two_lags(small_scene: NDArray[np.uint8]) -> None:
    gray = luma(small_scene).astype(float)
    ratios = []
    for each in (gray, gray.T):
        near, far = (np.square(each[lag:] - each[:-lag]).mean() for lag in (1, 2))
        ratios.append((far + 0.5) / (near + 0.5))
    assert softness(luma(small_scene)) == pytest.approx(max(ratios))
    noise = np.random.default_rng(8).integers(0, 256, (64, 64), np.uint8)
    assert softness(noise) == pytest.approx(1, abs=0.05)
    assert softness(np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))) == pytest.approx(4, abs=0.1)


def test_texture_on_a_part_of_an_image_is_not_its_least_noise() -> None:
    image = np.full((192, 192, 3), 120, np.uint8)
    image[64:] = np.random.default_rng(9).integers(80, 160, (128, 192, 1), np.uint8)
    found = image_measures(image)
    assert found["noise"] > 10
    assert found["least_noise"] == 0


@pytest.mark.parametrize("sigma", [2.0, 5.0, 12.0, 25.0])
def test_planted_noise_is_measured_within_a_tenth(scene: NDArray[np.uint8], sigma: float) -> None:
    smooth = cv2.GaussianBlur(scene, (0, 0), 3)
    noise = np.random.default_rng(4).normal(0, sigma, (*scene.shape[:2], 1))
    noisy = np.clip(smooth * 0.4 + 70 + noise, 0, 255).astype(np.uint8)
    found = image_measures(noisy)
    assert found["noise"] == pytest.approx(sigma, rel=0.1)
    assert found["least_noise"] == pytest.approx(sigma, rel=0.1)


def test_measures_follow_graded_blur_and_compression(scene: NDArray[np.uint8]) -> None:
    blurred = [scene, *(cv2.GaussianBlur(scene, (0, 0), sigma) for sigma in (0.7, 1.5, 3.0))]
    found = [image_measures(image) for image in blurred]
    assert [measures["softness"] for measures in found] == sorted(measures["softness"] for measures in found)
    for name in ("sharpness", "working_sharpness", "high_frequency", "spectral_sharpness"):
        values = [measures[name] for measures in found]
        assert values == sorted(values, reverse=True), name
    slopes = [
        measures["spectral_slope"] for measures in found[:3]
    ]  # then the noise of rounding to levels dominates
    assert slopes == sorted(slopes, reverse=True)
    blocks = []
    for quality in (95, 40, 10):
        data = cv2.imencode(".jpg", cv2.GaussianBlur(scene, (0, 0), 1), [cv2.IMWRITE_JPEG_QUALITY, quality])[
            1
        ]
        blocks.append(image_measures(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)))["blockiness"])
    assert blocks == sorted(blocks)
    assert blocks[0] == pytest.approx(1, abs=0.15)
    assert blocks[-1] > 1.5


def test_blockiness_agrees_with_a_loop(scene: NDArray[np.uint8]) -> None:
    tiles = make_working_copies(scene).tiles
    borders, others = [], []
    for tile in tiles.astype(int):
        for gray in (tile, tile.T):
            for number, steps in enumerate(np.abs(np.diff(gray, axis=0))):
                (borders if number % 8 == 7 else others).extend(steps)
    assert blockiness(tiles) == pytest.approx((np.mean(borders) + 0.1) / (np.mean(others) + 0.1))


def test_cooccurrence_agrees_with_scikit_image(scene: NDArray[np.uint8]) -> None:
    gray = make_working_copies(scene).working_gray
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    counts = skimage.feature.graycomatrix(gray >> 4, [1], angles, 16, symmetric=True).sum(
        axis=3, keepdims=True
    )
    assert np.array_equal(cooccurrence(gray), counts[:, :, 0, 0])
    shares = counts / counts.sum()
    found = glcm_measures(gray)
    for name in ("contrast", "homogeneity", "energy", "correlation"):
        expected = skimage.feature.graycoprops(shares, name)[0, 0]
        assert found[f"glcm_{name}"] == pytest.approx(expected), name


def test_binary_patterns_agree_with_a_loop(small_scene: NDArray[np.uint8]) -> None:
    gray = luma(small_scene).astype(int)
    counts = np.zeros(10)
    for row in range(1, gray.shape[0] - 1):
        for column in range(1, gray.shape[1] - 1):
            around = gray[row - 1 : row + 2, column - 1 : column + 2]
            ring = np.array([*around[0], around[1, 2], *around[2, ::-1], around[1, 0]]) >= around[1, 1]
            changes = int((ring != np.roll(ring, 1)).sum())
            counts[int(ring.sum()) if changes <= 2 else 9] += 1
    assert lbp_histogram(luma(small_scene)) == pytest.approx(counts / counts.sum())


def test_the_spectrum_agrees_with_a_full_transform() -> None:
    generator = np.random.default_rng(5)
    tiles = cv2.GaussianBlur(generator.integers(0, 256, (64, 64), np.uint8), (0, 0), 1)[None]
    power = np.zeros((64, 64))
    for tile in tiles.astype(float):
        power += np.abs(np.fft.fft2((tile - tile.mean()) * np.outer(np.hanning(64), np.hanning(64)))) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    found = spectrum_measures(tiles)
    assert found["low_frequency"] == pytest.approx(power[frequency < 1 / 16].sum() / power.sum(), rel=1e-4)
    assert found["high_frequency"] == pytest.approx(power[frequency >= 1 / 4].sum() / power.sum(), rel=1e-4)
    assert found["spectral_sharpness"] == pytest.approx((power > power.max() / 1e6).mean(), abs=0.002)
    centers = (np.arange(1, 32) + 0.5) / 64
    means = [power[(frequency * 64).astype(int) == ring].mean() for ring in range(1, 32)]
    assert found["spectral_slope"] == pytest.approx(
        np.polyfit(np.log(centers), np.log(means), 1)[0], rel=1e-3
    )


def test_white_noise_has_a_flat_spectrum() -> None:
    noise = np.random.default_rng(6).integers(0, 256, (9, 64, 64), np.uint8)
    assert spectrum_measures(noise)["spectral_slope"] == pytest.approx(0, abs=0.1)


def test_halved_copies_are_means_of_blocks() -> None:
    image = np.random.default_rng(7).integers(0, 256, (512, 512, 3), np.uint8)
    expected = skimage.transform.downscale_local_mean(image.astype(float), (8, 8, 1))
    assert np.abs(make_working_copies(image).color - expected).max() < 2


def test_tiles_are_pixels_of_the_image_at_block_borders(scene: NDArray[np.uint8]) -> None:
    gray = cv2.cvtColor(scene, cv2.COLOR_RGB2GRAY)
    tiles = make_working_copies(scene).tiles
    places = [(row, column) for row in (0, 72, 144) for column in (0, 112, 232)]
    assert len(tiles) == 9
    for tile, (row, column) in zip(tiles, places, strict=True):
        assert np.array_equal(tile, gray[row : row + 64, column : column + 64])


def test_the_largest_laplacians_are_summed_exactly() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    tiles = np.repeat(board.astype(np.uint8)[None], 9, axis=0)
    copies = WorkingCopies(tiles[0], tiles, tiles[0], tiles[0], tiles[0])
    assert defect_measures(copies)["sharpness"] == pytest.approx(1020**2)
