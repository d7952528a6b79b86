"""The page shows each finding with thumbnails of its images, and names from the dataset stay text."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from lightwell.models.audits.dataset.dataset_table import DatasetTable
from lightwell.models.audits.dataset.picture_stage import MAX_SHOWN, SCHEMA, encode_thumbnail, shown_keys
from lightwell.models.audits.dataset.report.page import write_report
from lightwell.models.audits.dataset.summary import NUM_BINS, distributions
from lightwell.models.audits.findings.finding import Advice, Effect, Finding, Null
from PIL import Image

HOSTILE = "<img src=x onerror=alert(1)>\"'`.jpg"


def finding(keys: tuple[str, ...], kind: Any = "quality") -> Finding:
    return Finding(
        f"{kind}-1", kind, "high", HOSTILE, 0, None, f"{HOSTILE} is dark.", Effect(0.25, "share of images", 0.2, 0.3),
        Null(0.01, 0.0001, 0.0002), 100, 25, keys, advice=Advice(f"Look at {HOSTILE}.", "augment:\n  - CLAHE: {p: 1.0}\n"),
    )  # fmt: skip


def page_of(path: Path, found: tuple[Finding, ...], pictures: pa.Table) -> str:
    facts: dict[str, Any] = {
        "title": HOSTILE,
        "num_images": 100,
        "num_usable": 99,
        "num_fixes": 3,
        "split": None,
        "classes": {HOSTILE: 60, "b": 39},
        "splits": {},
        "formats": {"jpeg": 99},
        "normalize": None,
        "distributions": {"brightness": {"low": 0.0, "high": 255.0, "median": 90.0, "counts": [0, 3, 1]}},
    }
    write_report(facts, found, pictures, path)
    return path.read_text(encoding="utf-8")


def test_findings_have_their_numbers_advice_keys_and_thumbnails_and_names_stay_text(tmp_path: Path) -> None:
    jpeg = encode_thumbnail(np.full((8, 8, 3), 120, np.uint8))
    pictures = pa.Table.from_pylist([{"key": HOSTILE, "jpeg": jpeg}], schema=SCHEMA)
    text = page_of(tmp_path / "report.html", (finding((HOSTILE, "absent.jpg")),), pictures)
    assert "<img src=x" not in text
    assert len(re.findall(r'<img src="data:image/jpeg;base64,', text)) == 1
    assert "25.0 % (20.0 to 30.0 %); by chance 1.0 %, p &lt; 0.001, q &lt; 0.001" in text
    assert "CLAHE" in text
    assert "absent.jpg" in text
    assert len(re.findall(r"<rect ", text)) == 3
    assert not re.search(r'(src|href)="(?!data:)', text)


def test_a_page_without_findings_says_so(tmp_path: Path) -> None:
    assert "No check found anything" in page_of(
        tmp_path / "report.html", (), pa.Table.from_pylist([], SCHEMA)
    )


def test_thumbnails_are_of_readable_images_each_once_and_a_few_of_each_finding() -> None:
    keys = tuple(f"{number}.jpg" for number in range(20))
    assert shown_keys([finding(keys), finding(keys[:3], "leakage")], keys[1:]) == keys[1:MAX_SHOWN]


@pytest.mark.parametrize("channels", [1, 3])
def test_thumbnails_are_jpegs_of_gray_and_colour_images(channels: int) -> None:
    image = np.full((6, 9, channels), 77, np.uint8)
    with Image.open(io.BytesIO(encode_thumbnail(image))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (9, 6))


def test_histograms_count_every_known_value_and_leave_out_constant_columns() -> None:
    values = np.append(np.random.default_rng(0).normal(size=999), np.nan)
    table = DatasetTable(
        keys=np.array([str(row) for row in range(1000)], object),
        labels=np.full(1000, -1),
        class_names=(),
        splits=np.full(1000, None, object),
        problems=np.full(1000, None, object),
        seed=0,
        images={"brightness": values, "contrast": np.ones(1000), "entropy": np.full(1000, np.nan)},
    )
    found = distributions(table)
    assert list(found) == ["brightness"]
    assert sum(found["brightness"]["counts"]) == 999
    assert len(found["brightness"]["counts"]) == NUM_BINS
