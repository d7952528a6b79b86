"""The planted folders hold what they claim, and the audit of one finds it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.defects import COPIES, audit_folder, recall
from benchmarks.planted_folder import COPIES_EACH, OTHER_QUALITY, QUALITY, Planted, plant_folder
from lightwell.pipeline.statistics.file_measures import file_measures
from PIL import Image

NUM_PHOTOS = 18


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Three classes of smooth random pictures."""
    folder = tmp_path_factory.mktemp("photos")
    found: dict[str, list[Path]] = {"a": [], "b": [], "c": []}
    for number in range(3 * NUM_PHOTOS):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        path = folder / f"{number}.png"
        Image.fromarray(pixels).resize((128, 96), Image.Resampling.BICUBIC).save(path)
        found["abc"[number % 3]].append(path)
    return found


@pytest.fixture(scope="module")
def planted(photos: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Planted]:
    folder = tmp_path_factory.mktemp("planted")
    return folder, plant_folder(photos, folder / "photos", 0, is_clean=False)


def qualities(folder: Path) -> dict[str, int]:
    """Return the estimated quality of each file by key."""
    return {
        path.relative_to(folder).as_posix(): file_measures(path.read_bytes(), "jpeg", 128, 96)["jpeg_quality"]
        for path in folder.rglob("*.jpg")
    }


def test_copies_are_in_the_training_split_and_leaks_come_from_the_test_split(
    planted: tuple[Path, Planted],
) -> None:
    folder, found = planted
    # the test split of 14 photos has fewer sources than there are leaks to plant
    assert {copy.kind for copy in found.copies} == set(COPIES)
    assert sum(not copy.leaks for copy in found.copies) == COPIES_EACH * len(COPIES)
    for copy in found.copies:
        assert copy.key.startswith("train/")
        assert copy.source.startswith("test/" if copy.leaks else "train/")
        assert copy.key.split("/")[1] == copy.source.split("/")[1]
        assert (folder / "photos" / copy.key).is_file()


def test_the_trace_is_the_other_quality_of_one_class_and_a_twin_has_none(
    planted: tuple[Path, Planted], photos: dict[str, list[Path]], tmp_path: Path
) -> None:
    folder, found = planted
    assert found.trace is not None
    originals = {
        key: quality for key, quality in qualities(folder / "photos").items() if key[-8:-4].isdigit()
    }
    marked = {key.split("/")[1] for key, quality in originals.items() if quality == OTHER_QUALITY}
    assert marked == {found.trace.class_name}
    assert plant_folder(photos, tmp_path / "twin", 0, is_clean=True) == Planted()
    twin = qualities(tmp_path / "twin")
    assert len(twin) == len(originals)
    assert set(twin.values()) == {QUALITY}
    assert sorted(Path(key).name for key in twin) == sorted(Path(key).name for key in originals)


def test_an_audit_finds_exact_copies_and_the_trace(planted: tuple[Path, Planted]) -> None:
    folder, found = planted
    outcome = audit_folder(folder, found, 0, is_clean=False)
    assert recall([outcome], "leak, exact") == 100
    assert recall([outcome], "duplicate, exact") == 100
    assert recall([outcome], "property") == 100
    assert len(outcome.planted) == len(found.copies) + 1
    assert outcome.alarms == ()
