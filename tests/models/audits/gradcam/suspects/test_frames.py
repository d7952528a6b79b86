"""The same edges in images of one class only are found, however thin; edges of all classes and chance are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from image_tables import image_table
from lightwell.models.audits.gradcam.edges import GRID, NUM_DEPTHS, SEGMENTS, edge_colours
from lightwell.models.audits.gradcam.suspects.frames import frame_suspects
from lightwell.models.audits.gradcam.suspects.image_table import ImageTable

SIDE = 2 * GRID


def framed_table(marked: np.ndarray, *, sides: str = "tblr", thickness: int = 2, seed: int = 0) -> ImageTable:
    """Return 30 images of each of 4 classes with random pixels, and dark bars with some noise in the marked ones."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (120, 3, SIDE // 4, SIDE // 4)).repeat(4, axis=2).repeat(4, axis=3)
    for row in marked:
        image = images[row]
        for side, bar in (("t", image[:, :thickness]), ("b", image[:, -thickness:])):
            if side in sides:
                bar[:] = generator.integers(0, 8, bar.shape)
        for side, bar in (("l", image[:, :, :thickness]), ("r", image[:, :, -thickness:])):
            if side in sides:
                bar[:] = generator.integers(0, 8, bar.shape)
    return image_table(4, 30, edges=edge_colours(torch.from_numpy(images) / 255))


def test_edge_colours_are_those_of_the_strips_from_the_edge_inwards() -> None:
    image = torch.zeros(1, 3, SIDE, 2 * SIDE)
    image[:, 0, :2] = 1
    image[:, 1, :, -4:] = 0.5
    (edges,) = edge_colours(image)
    assert edges.shape == (4, NUM_DEPTHS, SEGMENTS, 3)
    top, bottom, left, right = edges
    assert (top[0, :, 0] == 255).all()
    assert (top[1:, :, 0] == 0).all()
    assert (bottom[..., 0] == 0).all()
    assert (right[0, :, 1] == 128).all()
    assert (right[1:, :, 1] == 0).all()
    assert (left[..., 1] == 0).all()


@pytest.mark.parametrize(
    ("sides", "name", "num_cells"),
    [("tblr", "all four edges", 108), ("tb", "top and the bottom edge", 56), ("l", "left edge", 28)],
)
def test_a_thin_bar_in_a_fifth_of_one_class_is_found_with_its_images_and_its_sides(
    sides: str, name: str, num_cells: int
) -> None:
    table = framed_table(np.arange(6), sides=sides)
    (found,) = frame_suspects(table)
    assert (found.kind, found.class_name, found.num_concerned) == ("frame", "class0", 6)
    assert set(found.keys) == set(table.keys[:6].tolist())
    assert found.region is not None
    assert found.region.name == name
    assert found.region.weights.sum() == num_cells
    assert found.null.q is not None
    assert found.null.q <= 0.01
    assert found.null.expected == 0


def test_the_region_is_as_thick_as_the_bar() -> None:
    (found,) = frame_suspects(framed_table(np.arange(30), sides="b", thickness=6))
    assert found.region is not None
    assert np.flatnonzero(found.region.weights.all(axis=1)).tolist() == [GRID - 3, GRID - 2, GRID - 1]


def test_a_frame_of_all_classes_chance_or_no_edges_are_no_finding() -> None:
    assert frame_suspects(framed_table(np.arange(120))) == []
    assert frame_suspects(framed_table(np.arange(0, 120, 5))) == []
    assert frame_suspects(framed_table(np.arange(0))) == []
    assert frame_suspects(image_table()) == []
