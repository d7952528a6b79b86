"""Graded defects are found from a stated grade on, and not in clean pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from lightwell.models.audits.dataset.checks.duplicate_groups import DuplicateGroups, without_copies
from lightwell.models.audits.dataset.checks.odd_files import find_odd_files
from lightwell.models.audits.dataset.checks.quality import find_quality
from lightwell.models.audits.dataset.dataset_table import DatasetTable
from lightwell.models.audits.findings.finding import finding_id
from lightwell.pipeline.statistics.image_measures import image_measures

from .made_tables import jpeg, make_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_CLEAN, NUM_EACH = 20, 4
SIDE = 200
Change = Callable[["NDArray[np.uint8]"], "NDArray[np.uint8]"]


def add_noise(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    noise = np.random.default_rng(1).normal(0, 20, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def move(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.blur(picture, (9, 1)), np.uint8)


FOUND: dict[str, tuple[str, Change]] = {
    "dark at 0.2": ("dark", lambda picture: (picture * 0.2).astype(np.uint8)),
    "light at 0.98": ("light", lambda picture: (255 - (255 - picture) * 0.02).astype(np.uint8)),
    "blurred by 1.6 of 200 pixels": (
        "blurry",
        lambda picture: np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.6)),
    ),
    "moved by 9 pixels": ("blurry", move),
    "noise of 20 levels": ("noisy", add_noise),
    "saved at quality 5": ("blocky", lambda picture: jpeg(picture, 5)),
    "contrast of 2 %": ("low information", lambda picture: (125 + picture * 0.02).astype(np.uint8)),
    "without color": ("gray", lambda picture: picture[..., :1].repeat(3, axis=2)),
}


def make_photo(seed: int) -> NDArray[np.uint8]:
    """Make a picture with edges at all scales and some noise: sharp ellipses of sizes that follow a power law."""
    generator = np.random.default_rng(seed)
    picture = np.full((SIDE, SIDE, 3), generator.integers(60, 200, 3), np.uint8)
    for size in 70 / generator.uniform(1, 25, 250) + 1:
        center = generator.integers(0, SIDE, 2).tolist()
        axes = (size * generator.uniform(0.5, 1.5, 2)).astype(int).tolist()
        color = generator.integers(10, 245, 3).tolist()
        cv2.ellipse(picture, center, axes, float(generator.uniform(0, 180)), 0, 360, color, -1)
    return np.clip(picture + generator.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def table() -> DatasetTable:
    """Clean pictures, then four of each defect."""
    clean = [make_photo(seed) for seed in range(NUM_CLEAN)]
    pictures = clean + [change(clean[number]) for _, change in FOUND.values() for number in range(NUM_EACH)]
    rows = [image_measures(picture) for picture in pictures]
    names = (
        "brightness_p99",
        "brightness_p5",
        "entropy",
        "softness",
        "contrast",
        "least_noise",
        "blockiness",
        "is_gray",
    )
    return make_table(
        len(rows), images={name: np.array([row[name] for row in rows], float) for name in names}
    )


@pytest.mark.parametrize("defect", FOUND)
def test_graded_defects_are_found_from_this_grade_on(table: DatasetTable, defect: str) -> None:
    name = FOUND[defect][0]
    start = NUM_CLEAN + NUM_EACH * list(FOUND).index(defect)
    keys = set(table.keys_of(range(start, start + NUM_EACH)))
    (found,) = [one for one in find_quality(table) if one.id == finding_id("quality", name)]
    assert keys <= set(found.keys)


def test_clean_pictures_have_no_defects(table: DatasetTable) -> None:
    clean = set(table.keys_of(range(NUM_CLEAN)))
    assert all(clean.isdisjoint(found.keys) for found in find_quality(table))


def test_files_of_several_frames_and_odd_compression_are_found() -> None:
    sizes = np.array([0.2, 0.25, 0.2, 2.5, 0.01, 3.0, 3.1, 0.22])
    formats = np.array(["jpeg"] * 5 + ["png"] * 2 + ["jpeg"], object)
    frames = np.array([0, 0, 1, 0, np.nan, 0, 0, 1.0])
    table = make_table(8, files={"bytes_per_pixel": sizes, "format": formats, "has_several_frames": frames})
    found = {one.id: one.keys for one in find_odd_files(table)}
    assert found[finding_id("odd_file", "frames")] == table.keys_of([2, 7])
    assert found[finding_id("odd_file", "compression")] == table.keys_of([3, 4])


def test_exact_copies_are_no_near_duplicates_as_well() -> None:
    near = DuplicateGroups(np.array([0, 0, 1, 1, 1, -1, 2, 2]))
    exact = DuplicateGroups(np.array([0, 0, 1, 1, -1, -1, -1, -1]))
    table = make_table(8, files={"bytes": np.array([1, 1, 5, 6, 1, 1, 1, 1.0])})
    assert [rows.tolist() for rows in without_copies(table, near, exact).members()] == [[3, 4], [6, 7]]
