"""A mark that a probe relies on is planted, found and confirmed in one run; without the mark nothing is found."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from lightwell.models.audits.calibration.condition import Condition, Experiment, halves, run_condition
from lightwell.models.audits.calibration.frozen_network import FrozenNetwork, open_frozen_network
from lightwell.models.audits.calibration.plants import Mark
from lightwell.models.audits.calibration.probed_images import ImagePool
from lightwell.models.audits.calibration.scoring import images_to_open, score, share_on_mark
from lightwell.models.audits.findings.finding import Region
from lightwell.pipeline.errors import ModelError
from torch import nn

SIDE, NUM_EACH, NUM_CLASSES = 56, 60, 3


class Colours(nn.Module):
    """Pools its input to 7 x 7 cells of fixed nonlinear colour features, then over the cells, and has a linear head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Conv2d(3, 32, 8, stride=8), nn.ReLU(), nn.Conv2d(32, 32, 1), nn.ReLU())
        self.fc = nn.Linear(32, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, 5)."""
        values: torch.Tensor = self.fc(self.trunk(images).mean((2, 3)))
        return values


def inputs(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Return noisy images with a patch of the class's colour at a random place."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(NUM_CLASSES), NUM_EACH)
    images = generator.integers(70, 180, (len(labels), SIDE, SIDE, 3), dtype=np.uint8)
    colours = np.array([[190, 90, 90], [90, 190, 90], [90, 90, 190]])
    for row, label in enumerate(labels):
        top, left = generator.integers(0, SIDE - 24, 2)
        patch = images[row, top : top + 24, left : left + 24]
        texture = generator.integers(-60, 60, (1, 1, 3)) + generator.integers(-60, 60, (24, 1, 1))
        patch[:] = np.clip(patch // 2 + colours[label] // 2 + texture, 0, 255)
    return images, labels


@pytest.fixture(scope="module")
def opened() -> Iterator[tuple[ImagePool, FrozenNetwork]]:
    images, labels = pictures()
    with open_frozen_network(
        Colours(), inputs, images[0], device=torch.device("cpu"), is_normalized=True
    ) as network:
        keys = np.array([f"{row:03d}" for row in range(len(labels))], object)
        yield ImagePool(keys, labels, ("red", "green", "blue"), images, network.activations(images)), network


@pytest.fixture(scope="module")
def marked(opened: tuple[ImagePool, FrozenNetwork]) -> Experiment:
    return run_condition(*opened, Condition(Mark("logo", 0.06), target=1, prevalence=0.5, seed=1))


def test_a_mark_that_the_probe_relies_on_is_found_where_it_is(marked: Experiment) -> None:
    found = score(marked)
    assert marked.relies
    assert found.found
    assert found.localisation is not None
    assert found.localisation >= 0.5
    assert found.opened == 0
    assert found.false_alarms == 0


def test_the_same_condition_gives_the_same_findings(
    opened: tuple[ImagePool, FrozenNetwork], marked: Experiment
) -> None:
    again = run_condition(*opened, marked.condition)
    assert [each.to_dict() for each in again.findings] == [each.to_dict() for each in marked.findings]
    assert (again.pasted, again.removed) == (marked.pasted, marked.removed)


def test_nothing_is_found_in_the_clean_twin(opened: tuple[ImagePool, FrozenNetwork]) -> None:
    clean = score(run_condition(*opened, Condition(None, seed=1)))
    assert (clean.found, clean.relies, clean.false_alarms, clean.opened) == (False, False, 0, None)


def test_halves_have_no_image_in_common_and_all_classes() -> None:
    labels = np.array([0] * 7 + [1] * 4)
    first, second = halves(labels, 3)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(11))
    assert np.bincount(labels[first]).tolist() == [4, 2]
    assert first.tolist() != halves(labels, 4)[0].tolist()


def test_a_network_with_more_than_a_linear_head_is_refused() -> None:
    deep = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.Flatten(), nn.Linear(8 * 49, 5))
    with (
        pytest.raises(ModelError, match="average pooling and a linear layer"),
        open_frozen_network(
            deep, inputs, pictures()[0][0], device=torch.device("cpu"), is_normalized=True, target_layer="0"
        ),
    ):
        pass


def test_a_region_lies_on_a_mark_if_its_cells_touch_those_of_the_mark() -> None:
    mask = np.zeros((70, 70), np.bool_)
    mask[60:, :10] = True
    weights = np.zeros((7, 7), np.float32)
    weights[5:, :2] = 1
    assert share_on_mark(Region.from_weights("corner", weights), mask) == 1
    weights[0] = 1
    assert share_on_mark(Region.from_weights("more", weights), mask) == pytest.approx(4 / 11)


def test_images_are_opened_in_the_listed_order_then_at_random(marked: Experiment) -> None:
    keys = marked.table.keys
    good, bad = keys[marked.is_marked].tolist(), keys[~marked.is_marked].tolist()
    assert images_to_open([bad[0], bad[0], bad[1], good[0]], marked) == 2
    assert images_to_open([bad[0]], marked) == pytest.approx(1 + (len(bad) - 1) / (len(good) + 1))
