"""The page shows each finding with thumbnails of its images, and names from the dataset stay text."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from browser import probe_report
from lightwell.models.audits.dataset.dataset_table import DatasetTable
from lightwell.models.audits.dataset.picture_stage import (
    MAX_CLASSES,
    MAX_COMPARED,
    MAX_OF_CLASS,
    MAX_OF_KIND,
    MAX_SHOWN,
    SCHEMA,
    class_keys,
    encode_thumbnail,
    shown_keys,
    upright_sizes,
)
from lightwell.models.audits.dataset.report.class_rows import class_rows
from lightwell.models.audits.dataset.report.histograms import draw_histograms
from lightwell.models.audits.dataset.report.page import write_report
from lightwell.models.audits.dataset.summary import NUM_BINS, distributions
from lightwell.models.audits.findings.finding import Advice, Effect, Finding, Null
from PIL import Image

HOSTILE = "<img src=x onerror=alert(1)>\"'`.jpg"


def finding(keys: tuple[str, ...], kind: Any = "quality", **changes: Any) -> Finding:
    found = Finding(
        f"{kind}-1", kind, "high", None, -1, None, f"{HOSTILE} is dark.", Effect(0.25, "share of images", 0.2, 0.3),
        Null(0.01, 0.0001, 0.0002), 100, 25, keys, advice=Advice(f"Look at {HOSTILE}.", "augment:\n  - CLAHE: {p: 1.0}\n"),
    )  # fmt: skip
    return replace(found, **changes)


FOUND = (
    finding((HOSTILE, "absent.jpg")),
    finding(("1.jpg", "2.jpg"), "leakage", class_name=HOSTILE, other_keys=("3.jpg",)),
)
KEYS = ("0.jpg", "1.jpg", "2.jpg", "3.jpg", HOSTILE, "cut.jpg")
RECORDS = pa.table(
    {
        "key": KEYS,
        "class": ["b", "b", HOSTILE, HOSTILE, HOSTILE, HOSTILE],
        "split": ["train", "test", "train", "train", "test", "test"],
        "problem": [None] * 5 + ["cannot be decoded"],
        "width": [40] * 6,
        "height": [30] * 6,
        "orientation": [1, 6, None, 1, 1, 1],
        "brightness": [90.0, 91.0, 92.0, 93.0, 1.0, None],
    }
)
FACTS: dict[str, Any] = {
    "title": HOSTILE,
    "network": {"name": HOSTILE, "notes": [HOSTILE]},
    "num_images": 6,
    "num_usable": 5,
    "num_boxes": 0,
    "is_multi_label": False,
    "num_fixes": 3,
    "skipped_checks": {f"learning curve {HOSTILE}": "they need a network; add --model"},
    "split": None,
    "classes": {HOSTILE: 3, "b": 2},
    "splits": {"train": 3, "test": 2},
    "formats": {"jpeg": 5},
    "width": [40, 40, 40, 40, 40],
    "height": [30, 30, 30, 30, 30],
    "normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
    "distributions": {"brightness": {"low": 1.0, "high": 93.0, "median": 91.0, "counts": [1, 0, 4]}},
}
EMPTY: dict[str, Any] = {
    "num_images": 0, "num_usable": 0, "classes": {}, "splits": {}, "formats": {}, "width": None, "height": None,
    "normalize": None, "distributions": {},
}  # fmt: skip
PROBE = """Object.assign(found, {
    all: shown(), class: apply("class", "b"), split: apply("split", "test"), kind: apply("finding", "leakage"),
    none: apply("finding", "none"), key: apply("text", "3.JPG"), status: page.getElementById("filter-count").textContent,
    cut: [...pages[0].querySelectorAll(".scroll")].map((one) => one.scrollWidth - one.clientWidth),
    buttons: [...page.querySelectorAll("button.copy")].map((button) => button.hidden),
    injected: page.querySelectorAll("img").length,
    figure: getComputedStyle(page.querySelector("figure")).minWidth,
  });
  press("/");
  found.search = page.activeElement.name;
  apply("text", "");
  page.activeElement.blur();
  press("ArrowRight"); press("ArrowRight");
  found.focus = page.activeElement.closest(".card").dataset.key;"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    jpeg = encode_thumbnail(np.full((160, 160, 3), 120, np.uint8))
    pictures = pa.Table.from_pylist([{"key": key, "jpeg": jpeg} for key in KEYS[:5]], schema=SCHEMA)
    write_report(FACTS, FOUND, RECORDS, pictures, path)
    return path


def test_findings_have_their_numbers_advice_keys_and_thumbnails_and_names_stay_text(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<img" not in text
    assert text.count("data:image/jpeg;base64,") == 5, "each picture is stored once"
    said = re.sub(r"<[^>]+>", " ", text)
    assert re.search(r"share of images +25.0 % \(20.0 to 30.0 %\)", said)
    assert "1.0 %, p &lt; 0.001, q &lt; 0.001" in said
    assert "Images to compare with" in said
    assert "CLAHE" in said
    assert "absent.jpg" in said
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(re.findall(r'\bid="([^"]+)"', text))


def test_of_many_findings_of_a_kind_the_first_have_a_card_and_the_others_a_line(tmp_path: Path) -> None:
    found = [finding(KEYS[:1], "predictive_property", id=f"property-{number}") for number in range(20)]
    found.append(finding(KEYS[:1], "leakage", id="leak"))
    path = tmp_path / "report.html"
    write_report(FACTS, found, RECORDS, pa.Table.from_pylist([], SCHEMA), path)
    text = path.read_text(encoding="utf-8")
    assert re.findall(r'<article class="panel finding is-high" id="([^"]+)"', text) == [
        *(f"property-{number}" for number in range(MAX_OF_KIND)),
        "leak",
    ]
    assert re.findall(r'<tr id="([^"]+)"', text) == [
        f"property-{number}" for number in range(MAX_OF_KIND, 20)
    ]


def test_a_histogram_has_a_mark_where_the_images_of_a_finding_are_extreme() -> None:
    (drawn,) = draw_histograms(FACTS["distributions"], FOUND, RECORDS)
    assert len(drawn.bars) == 3
    assert [(mark.x, mark.value, mark.finding.kind) for mark in drawn.marks] == [(0, "1", "quality")]


def test_one_image_that_is_not_the_most_extreme_has_no_mark() -> None:
    values = np.arange(200.0)
    records = pa.table({"key": [str(row) for row in range(200)], "brightness": values})
    facts = {"brightness": {"low": 1.0, "high": 198.0, "median": 99.5, "counts": [100, 100]}}
    marks = {
        keys: len(draw_histograms(facts, (finding(keys),), records)[0].marks)
        for keys in (("5",), ("3", "4", "5"), ("0",), ("100", "101", "102"))
    }
    assert list(marks.values()) == [0, 1, 1, 0]


def test_classes_have_their_splits_unusable_files_and_findings() -> None:
    first, second = class_rows(FACTS, FOUND, RECORDS)
    assert (first.name, first.num_images, first.num_unusable) == (HOSTILE, 3, 1)
    assert first.splits == (("train", 2), ("test", 1))
    assert [each.kind for each in first.findings] == ["leakage"]
    assert (second.name, second.share, second.num_unusable, second.findings) == ("b", 0.4, 0, ())


def test_the_page_filters_its_gallery_and_answers_keys_in_a_browser(
    page: Path, chromium: str, tmp_path: Path
) -> None:
    found = probe_report(page, PROBE, chromium, tmp_path)
    assert found["overflow"] == [0, 0], "nothing is wider than the page, narrow or wide"
    assert found["cut"] == [0], "narrow, a table is a list"
    assert found["all"] == sorted(KEYS[:5])
    assert found["class"] == ["0.jpg", "1.jpg"]
    assert found["split"] == ["1.jpg", HOSTILE]
    assert found["kind"] == ["1.jpg", "2.jpg"]
    assert found["none"] == ["0.jpg", "3.jpg"]
    assert found["key"] == ["3.jpg"]
    assert found["status"].startswith("1 of 5 images shown.")
    assert " m maps" not in found["status"]
    assert set(found["buttons"]) == {False}
    assert (found["injected"], found["search"]) == (0, "text")
    assert found["focus"] == KEYS[1]
    assert found["figure"] == "0px", "rules after the first media query apply"


def test_sizes_are_those_of_upright_images(page: Path) -> None:
    assert upright_sizes(RECORDS, KEYS[:3]) == {"0.jpg": (30, 40), "1.jpg": (40, 30), "2.jpg": (30, 40)}
    assert len(re.findall("30 × 40", page.read_text(encoding="utf-8"))) == 1  # noqa: RUF001


def test_a_page_without_images_or_findings_says_so(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(FACTS | EMPTY, (), RECORDS.slice(0, 0), pa.Table.from_pylist([], SCHEMA), path)
    assert "No check found anything" in path.read_text(encoding="utf-8")


def test_thumbnails_are_of_readable_images_each_once_and_a_few_of_each_finding() -> None:
    keys = tuple(f"{number}.jpg" for number in range(20))
    assert shown_keys([finding(keys), finding(keys[:3], "leakage")], keys[1:]) == keys[1:MAX_SHOWN]
    compared = finding(keys[:1], other_keys=keys[9:15])
    assert shown_keys([compared], keys) == (keys[0], *keys[9 : 9 + MAX_COMPARED])
    pairs = finding(keys[:4], "leakage", other_keys=keys[9:13])
    assert shown_keys([pairs], keys) == (*keys[:4], *keys[9:13])


def test_thumbnails_of_classes_are_evenly_spaced_and_of_the_largest_classes() -> None:
    names = ["a"] * 9 + ["b"] + [None] * 2 + [f"c{number}" for number in range(MAX_CLASSES)]
    readable = pa.table({"key": [f"{number}.jpg" for number in range(len(names))], "class": names})
    found = class_keys(readable)
    assert found[:6] == ("0.jpg", "4.jpg", "8.jpg", "10.jpg", "11.jpg", "9.jpg")
    assert len(found) == MAX_OF_CLASS + 2 + MAX_CLASSES - 2


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
