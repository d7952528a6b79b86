"""An index of generated images for the tests of the pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightwell.pipeline.index.build import build_index
from pictures import make_folder


@pytest.fixture
def index_path(tmp_path: Path) -> Path:
    """24 JPEGs of two classes, all in the split ``train``."""
    path = tmp_path / "index.parquet"
    build_index(make_folder(tmp_path / "photos"), fractions={"train": 1.0}).save(path)
    return path
