"""Second opinions on a network whose attributions are known: a linear function of one corner."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightwell.models.explain.attribution.methods import Question, attribute
from lightwell.models.explain.attribution.names import METHODS, Method
from lightwell.models.explain.attribution.opinions import SHOWN, ask_others
from lightwell.models.explain.attribution.segments import grid, superpixels

SIZE = 28


def corner_logit(images: torch.Tensor) -> torch.Tensor:
    """Class 1: the sum of the upper left quarter; class 0 ignores the image."""
    share = images[:, :, : SIZE // 2, : SIZE // 2].sum(dim=(1, 2, 3))
    return torch.stack((torch.zeros_like(share), share), dim=1)


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return 0.5 + torch.rand((1, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0))


def question(image: torch.Tensor, seed: int = 0) -> Question:
    return Question(image, 1, torch.zeros_like(image), grid(SIZE, SIZE, 4, 4), seed)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_finds_the_corner_repeats_itself_and_leaves_the_generators_alone(
    method: Method, image: torch.Tensor
) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    found = attribute(corner_logit, method, question(image))
    again = attribute(corner_logit, method, question(image))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert found.tobytes() == again.tobytes()
    inside = found[: SIZE // 2, : SIZE // 2]
    outside = found.sum() - inside.sum()
    assert inside.sum() > 0
    assert abs(outside) < 0.2 * inside.sum()


def test_attributions_of_a_linear_model_are_exact(image: torch.Tensor) -> None:
    """Each pixel contributes its value: integrated gradients by pixel, Kernel SHAP by segment, divided by its pixels."""
    expected = image[0].sum(dim=0).numpy().copy()
    expected[SIZE // 2 :] = expected[:, SIZE // 2 :] = 0
    np.testing.assert_allclose(
        attribute(corner_logit, "integrated_gradients", question(image)), expected, atol=1e-4
    )
    by_segment = attribute(corner_logit, "kernel_shap", question(image))
    for row in range(2):
        cells = slice(7 * row, 7 * row + 7)
        assert by_segment[cells, 7:14].sum() == pytest.approx(expected[cells, 7:14].sum(), rel=0.05)


def test_opinions_state_agreement_and_cost(image: torch.Tensor) -> None:
    """A map of the corner agrees with both methods, its negative disagrees."""
    map_signed = np.full((4, 4), -0.1, np.float32)
    map_signed[:2, :2] = 1 + np.arange(4).reshape(2, 2) / 10
    methods: tuple[Method, ...] = ("occlusion", "integrated_gradients")
    baseline = torch.zeros_like(image)
    for sign in (1, -1):
        opinions = ask_others(corner_logit, image, 1, sign * map_signed, methods, baseline=baseline)
        assert [opinion.method for opinion in opinions] == list(methods)
        for opinion in opinions:
            assert sign * opinion.rank_correlation > 0.4
            assert opinion.attribution.shape == (SHOWN, SHOWN)
            assert opinion.num_forward >= 32
            assert opinion.seconds > 0
            assert opinion.top_overlap <= (1 if sign > 0 else 0)


def test_superpixels_cover_the_image_and_are_numbered_from_zero(image: torch.Tensor) -> None:
    smooth = torch.nn.functional.interpolate(image[:, :, :3, :3], size=SIZE)
    for channels in (1, 3, 4):
        segments = superpixels(smooth[:, :1].expand(1, channels, SIZE, SIZE), 9)
        numbers = segments.unique()
        assert segments.shape == (SIZE, SIZE)
        assert numbers.tolist() == list(range(len(numbers)))
        assert 4 <= len(numbers) <= 20
    assert superpixels(image, 9).tolist() == grid(SIZE, SIZE, 3, 3).tolist(), "noise"
    assert superpixels(torch.zeros((1, 3, 8, 8)), 4).unique().tolist() == [0, 1, 2, 3]
    assert grid(4, 6, 2, 3).tolist() == [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2
