"""Twelve photos of two classes with an index, and a checkpoint for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightwell import Plan, build_index
from pictures import make_folder
from trained import RESIZE_AND_CROP, save_trained


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders; the last file is cut off."""
    folder = make_folder(tmp_path_factory.mktemp("inference") / "photos", num_images=12)
    damaged = folder / "dog" / "011.jpg"
    damaged.write_bytes(damaged.read_bytes()[:900])
    return folder


@pytest.fixture(scope="session")
def plan(photos: Path) -> Plan:
    index = photos.parent / "index.parquet"
    build_index(photos).save(index)
    errors = {"on_error": "skip", "max_bad_share": None}
    return Plan(index=index, **RESIZE_AND_CROP, batch={"size": 4}, errors=errors, seed=5)


@pytest.fixture(scope="session")
def checkpoint(plan: Plan) -> Path:
    return save_trained(plan.index.parent / "best.safetensors", plan, temperature=1.5)
