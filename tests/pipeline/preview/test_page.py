"""The page opens offline in a browser, shows names from outside as text, and fits narrow and wide windows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import albumentations as A
import numpy as np
import pyarrow as pa
import pytest
from annotated import Scene, drawn_scene, write_index
from browser import open_page
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import SCHEMA, Index
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.preview.pictures import MOST_MARKS
from lightwell.pipeline.preview.preview import preview
from pictures import make_folder, make_picture

NASTY = "<img src=x onerror=alert(1)>\u202egpj.\x1b[31m'\"&{{ 7*7 }}"
PROBE = """<!doctype html><html><body><iframe src="PAGE" width="WIDTH" height="3000"></iframe><pre id="found"></pre>
<script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const page = frame.contentDocument, root = page.documentElement;
  const images = [...page.images];
  const outside = [...page.querySelectorAll("body *")].filter(one => !one.closest(".lwp-shot")
    && (one.getBoundingClientRect().right > root.clientWidth + 1 || (one.children.length === 0
    && one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0)));
  document.getElementById("found").textContent = JSON.stringify({
    width: root.clientWidth, scroll: root.scrollWidth, images: images.length,
    broken: images.filter(image => !image.naturalWidth).length,
    empty: images.filter(image => image.getBoundingClientRect().width < 30).length,
    outside: outside.map(one => one.outerHTML.slice(0, 120)), steps: page.querySelectorAll("ol li").length,
    scripts: page.scripts.length });
});
</script></body></html>"""


def nasty_index(tmp_path: Path) -> Path:
    """A table whose key, class, box class and keypoint are named to break a page."""
    path = write_index(tmp_path, [drawn_scene("a.png", 0)], keypoint_names=(NASTY,))
    table = Index.load(path).table
    for name, value in (("key", NASTY), ("split", "train")):
        column = pa.array([value] * len(table), SCHEMA.field(name).type)
        table = table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
    Index(table, (NASTY,), box_classes=(NASTY, NASTY), keypoint_names=(NASTY,)).save(path)
    return path


def test_names_are_shown_as_text(tmp_path: Path) -> None:
    plan = Plan(index=nasty_index(tmp_path), augment=[A.HorizontalFlip()], mix={"kind": "CutMix"})
    found = preview(plan, versions=2, name=NASTY)
    found.save(tmp_path / "preview.html")
    page = (tmp_path / "preview.html").read_text()
    assert "<img src=x" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") >= 8
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "{{ 7*7 }}" in page


def test_the_page_holds_all_that_it_needs_and_runs_nothing(index_path: Path, tmp_path: Path) -> None:
    found = preview(Plan(index=index_path, augment=[A.HorizontalFlip()]), samples=2)
    size = found.save(tmp_path / "preview.html")
    page = (tmp_path / "preview.html").read_text()
    assert size == (tmp_path / "preview.html").stat().st_size
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    assert not re.search(r"https?://|@import|url\(|<link|<iframe|<object|<script|javascript:", page)
    assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]*)"', page))


def test_a_notebook_shows_the_same_part(index_path: Path) -> None:
    found = preview(Plan(index=index_path), samples=2)
    part = found._repr_html_()
    assert part.startswith('<div class="lwp">')
    assert part.count("<style>") == 1
    assert part.count('alt="Original of') == 2
    styles = part[part.index("<style>") + 7 : part.index("</style>")]
    rules = re.findall(r"([^{}]+)\{", re.sub(r"@media[^{]*\{", "", styles))
    assert rules
    assert all(".lwp" in part for rule in rules for part in rule.split(",")), "styles of the notebook stay"


def test_marks_without_end_are_cut_and_counted(tmp_path: Path) -> None:
    boxes = [
        [float(i % 40), float(i % 30), float(i % 40 + 5), float(i % 30 + 5)] for i in range(MOST_MARKS + 23)
    ]
    scene = Scene("a.png", make_picture(0), boxes=boxes, box_labels=[0] * len(boxes))
    found = preview(Plan(index=write_index(tmp_path, [scene])), split="", versions=0)
    part = found._repr_html_()
    assert part.count('<i class="lwp-box') == 2 * MOST_MARKS
    assert "23 marks left out" in part


@pytest.mark.parametrize("width", [400, 1300])
def test_a_browser_shows_the_page_without_errors_and_nothing_overflows(
    width: int, chromium: str, tmp_path: Path
) -> None:
    scenes = [drawn_scene(f"{i}-{'a_long_name_' * 9}.png", i, size=(120 + 200 * i, 160)) for i in range(3)]
    path = write_index(tmp_path, [*scenes, Scene("gone.png", make_picture(9))])
    (tmp_path / "gone.png").unlink()
    policy = [
        A.RandomResizedCrop((96, 128), scale=(0.5, 1.0)),
        A.OneOf([A.HorizontalFlip(p=1), A.ColorJitter(p=1)], p=0.8),
        A.Perspective(p=0.5),
    ]
    normalize = A.Normalize(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    plan = Plan(
        index=path,
        preprocess=[normalize],
        augment=policy,
        evaluate=[A.Resize(96, 128)],
        mix={"kind": "CutMix"},
    )
    found = preview(plan, split="", versions=3, name="a plan with a long name " * 4)
    found.save(tmp_path / "preview.html")
    page = (tmp_path / "preview.html").read_text()
    (tmp_path / "preview.html").write_text(
        page.replace(' loading="lazy"', "")
    )  # so that the page waits for them
    probe = PROBE.replace("PAGE", (tmp_path / "preview.html").as_uri()).replace("WIDTH", str(width))
    (tmp_path / "probe.html").write_text(probe)
    done = open_page(chromium, tmp_path / "probe.html", tmp_path)
    measured = json.loads(re.findall(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)[0])
    assert [line for line in done.stderr.splitlines() if ":CONSOLE" in line] == []
    assert measured.pop("images") > 3 * 5 * 2, "pictures and their masks"
    assert measured.pop("steps") == 3 * (3 * 4 + 2)
    assert measured.pop("width") in range(width - 20, width + 1)
    assert measured.pop("scroll") <= width
    assert measured == {"broken": 0, "empty": 0, "outside": [], "scripts": 0}


def test_the_browser_would_tell_of_an_error_on_the_page(chromium: str, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<script>console.error('broken')</script>")
    done = open_page(chromium, tmp_path / "bad.html", tmp_path)
    assert ":CONSOLE" in done.stderr


def test_masks_lie_over_the_pictures_as_colours(tmp_path: Path) -> None:
    path = write_index(tmp_path, [drawn_scene("a.png", 0)])
    found = preview(Plan(index=path), split="", versions=0)
    part = found._repr_html_()
    assert part.count('<img class="lwp-mask') == 2
    assert "label 0, not coloured" in part
    assert "label 1" in part
    picture = found.samples[0].original
    assert picture is not None
    assert picture.labels == (0, 1)
    assert not np.array_equal(picture.mask, np.zeros_like(picture.mask))


def test_a_folder_without_labels_is_shown(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", num_images=3, classes=("",))
    build_index(folder).save(tmp_path / "index.parquet")
    part = preview(Plan(index=tmp_path / "index.parquet"), split="", samples=2)._repr_html_()
    assert part.count("no label") == 2
