"""A place that looks alike in images of one class only is found; parts of objects, marks of all classes and chance are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from image_tables import SIDE, image_table
from lightwell.models.audits.gradcam.cells import (
    MAX_SAMPLED,
    Cells,
    CellSample,
    cell_arrays,
)
from lightwell.models.audits.gradcam.features import FeatureProjection
from lightwell.models.audits.gradcam.suspects.image_table import ImageTable
from lightwell.models.audits.gradcam.suspects.look_alikes import look_alike_suspects

WIDTH = 64
CORNER, BESIDE = SIDE * (SIDE - 1), SIDE * (SIDE - 1) + 1
"""The lower left cell and the one to its right."""


def table_of(
    marked: np.ndarray, *, num_classes: int = 4, seed: int = 0, cells: tuple[int, ...] = (CORNER, BESIDE)
) -> ImageTable:
    """Return 40 images of each class with random cells, and the same activations in some cells of the marked images."""
    generator = np.random.default_rng(seed)
    num = 40 * num_classes
    features = generator.normal(size=(num, SIDE * SIDE, WIDTH))
    weights = generator.normal(size=(num_classes, WIDTH))
    labels = np.repeat(np.arange(num_classes), 40)
    mark = 2 * weights[0] + generator.normal(size=WIDTH)
    middle = np.isin(np.arange(SIDE * SIDE) // SIDE, (2, 3, 4))
    features += weights[labels][:, None] * middle[:, None] * generator.random((num, SIDE * SIDE, 1))
    for cell in cells:
        features[marked, cell] = mark + 0.5 * generator.normal(size=(len(marked), WIDTH))
    evidence = np.einsum("npd,kd->nkp", features, weights)
    sample = Cells(np.arange(num), features.astype(np.float16), evidence.astype(np.float16), (SIDE, SIDE))
    return image_table(num_classes, 40, seed=seed, cells=sample)


@pytest.mark.parametrize("num_marked", [6, 40])
def test_a_mark_in_images_of_one_class_is_found_with_its_images_and_its_place(num_marked: int) -> None:
    table = table_of(np.arange(num_marked))
    (found,) = look_alike_suspects(table)
    assert (found.kind, found.class_name, found.num_concerned) == ("cluster", "class0", num_marked)
    assert set(found.keys) <= set(table.keys[:num_marked].tolist())
    assert found.region is not None
    assert "lower left" in found.region.name
    assert np.flatnonzero(found.region.weights).tolist() == [CORNER, BESIDE]
    assert found.null.q is not None
    assert found.null.q <= 0.01
    assert found.null.expected == pytest.approx(0, abs=0.01)


def test_cells_with_the_same_images_are_one_region_though_they_do_not_touch() -> None:
    (found,) = look_alike_suspects(table_of(np.arange(12), cells=(0, CORNER, SIDE - 1, SIDE * SIDE - 1)))
    assert found.region is not None
    assert found.region.name.startswith("frame")


def test_a_mark_in_images_of_all_classes_is_no_finding() -> None:
    everywhere = np.concatenate([np.arange(8) + 40 * number for number in range(4)])
    assert look_alike_suspects(table_of(everywhere)) == []


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_found_without_a_mark(seed: int) -> None:
    assert look_alike_suspects(table_of(np.arange(0), seed=seed)) == []


def test_too_few_images_one_class_or_no_cells_give_no_finding() -> None:
    assert look_alike_suspects(table_of(np.arange(3))) == []
    assert look_alike_suspects(table_of(np.arange(12), num_classes=1)) == []
    assert look_alike_suspects(image_table()) == []


@pytest.mark.parametrize("side", [7, 14, 15])
def test_the_evidence_of_the_cells_adds_up_to_the_logit_without_its_bias(side: int) -> None:
    torch.manual_seed(0)
    activations, weight = torch.rand(3, 16, side, side), torch.randn(5, 16)
    features, evidence, size = cell_arrays(activations, weight, FeatureProjection(0))
    assert max(size) <= 7
    assert features.shape[:2] == (3, size[0] * size[1])
    logits = activations.mean((2, 3)) @ weight.T
    assert np.abs(evidence.astype(np.float32).sum(axis=2) - logits.numpy()).max() < 0.02


def test_all_images_of_a_small_split_are_sampled_and_about_the_limit_of_a_large_one() -> None:
    keys = [f"{number}.jpg" for number in range(4000)]
    assert CellSample(0, len(keys))(keys).all()
    share = CellSample(0, 10 * MAX_SAMPLED)(keys).mean()
    assert share == pytest.approx(0.1, abs=0.02)
