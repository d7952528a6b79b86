"""Annotation files of strangers: COCO JSON, YOLO text and YAML, Pascal VOC XML."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightwell import LightwellError, SourceError, build_index
from pictures import make_picture, write_picture

SECRET = "root:x:0:0"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with one picture, and a secret beside it."""
    folder = tmp_path / "photos"
    write_picture(folder / "a.png", make_picture(0, 24, 32))
    write_picture(tmp_path / "secret.png", make_picture(1, 24, 32))
    (tmp_path / "secret.txt").write_text(SECRET)
    return folder


def voc(folder: Path, xml: str) -> str:
    (folder / "JPEGImages").mkdir()
    (folder / "Annotations").mkdir()
    (folder / "a.png").rename(folder / "JPEGImages" / "a.png")
    (folder / "Annotations" / "a.xml").write_text(xml)
    (status,) = build_index(folder).table["status"].to_pylist()
    return str(status)


def test_entities_of_an_xml_file_are_not_expanded(photos: Path) -> None:
    """An XML file declares entities that expand to gigabytes: it is refused as it declares any, and costs its image."""
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "lol">{entities}]><annotation>&e11;</annotation>'
    started = time.process_time()
    assert "without a document type" in voc(photos, bomb)
    assert time.process_time() - started < 10


@pytest.mark.parametrize("system", ["file://{secret}", "{secret}", "http://127.0.0.1:1/x.dtd"])
def test_external_entities_of_an_xml_file_are_not_fetched(photos: Path, system: str) -> None:
    """An XML file names a local file or a server as an entity: nothing is read or fetched."""
    where = system.format(secret=photos.parent / "secret.txt")
    xml = f'<!DOCTYPE x [<!ENTITY e SYSTEM "{where}">]><annotation><object><name>&e;</name></object></annotation>'
    status = voc(photos, xml)
    assert "without a document type" in status
    assert SECRET not in status


def test_an_xml_file_nested_a_million_deep_costs_its_image_at_most(photos: Path) -> None:
    """An XML file nests elements without end: no crash, and the image has a row."""
    assert voc(photos, "<a>" * 300_000 + "</a>" * 300_000)


@pytest.mark.parametrize(
    "name", ["../secret.png", "/{root}/secret.png", "a/../../secret.png", "file:///{root}/secret.png"]
)
def test_a_coco_file_names_no_file_outside_its_folder(photos: Path, name: str) -> None:
    """A COCO file lists a picture elsewhere on the disk: that image is refused, the others are read."""
    outside = name.format(root=str(photos.parent).lstrip("/"))
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": outside}]
    (photos / "x.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    first, second = build_index(photos / "x.json").table["status"].to_pylist()
    assert first == "ok"
    assert "expected a path below the root of the annotations" in second


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"images": ' + "[" * 100_000,
        '{"images": [{"id": 1' + "0" * 5000 + ', "file_name": "a.png"}]}',
        '{"images": 5}',
        "[]",
        "",
        "\0",
    ],
)
def test_a_broken_coco_file_is_one_plain_error(photos: Path, text: str) -> None:
    """A JSON file is nested too deep, or holds numbers of 5,000 digits: one line says what was expected."""
    (photos / "x.json").write_text(text)
    with pytest.raises(SourceError, match=r"x\.json: expected a COCO file"):
        build_index(photos / "x.json")


@pytest.mark.parametrize("train", ["..", "../..", "/etc", "images/../../..", "s3://bucket/x"])
def test_a_yolo_file_names_no_folder_outside_its_own(photos: Path, train: str) -> None:
    """A data.yaml lists a folder elsewhere on the disk: it is refused and --root is named as the way to allow it."""
    (photos / "data.yaml").write_text(f"train: {train}\nnames: [cat]\n")
    with pytest.raises(SourceError, match=r"expected a folder below .* with --root"):
        build_index(photos / "data.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "train: .\nnames: !!python/object/apply:os.system ['touch hacked']\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\ntrain: .\nnames: ["
        + ", ".join(["*c"] * 50_000)
        + "]\n",
        "train: .\nnames: {99999999999: cat}\n",
        "train: .\nnames: {999999: cat}\n",
        "train: .\nkpt_shape: [1000000000, 3]\nnames: [cat]\n",
        "train: .\nkpt_shape: [-1, 3]\nnames: [cat]\n",
    ],
)
def test_a_hostile_yolo_file_is_one_plain_error(
    photos: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data.yaml builds objects, repeats itself without end or asks for a billion keypoints: refused, nothing runs."""
    monkeypatch.chdir(photos)
    (photos / "data.yaml").write_text(text)
    with pytest.raises(SourceError, match=r"data\.yaml"):
        build_index(photos / "data.yaml")
    assert not (photos / "hacked").exists()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
IMAGE = st.fixed_dictionaries(
    {}, optional={"id": JSON, "file_name": st.just("a.png") | JSON, "width": JSON, "height": JSON}
)
ANNOTATION = st.fixed_dictionaries(
    {},
    optional={
        "image_id": st.just(1) | JSON,
        "category_id": st.just(1) | JSON,
        "bbox": st.lists(st.floats() | JSON, max_size=5) | JSON,
        "keypoints": JSON,
        "iscrowd": JSON,
        "segmentation": JSON,
    },
)
CATEGORY = st.fixed_dictionaries({}, optional={"id": st.just(1) | JSON, "name": JSON, "keypoints": JSON})


@given(
    st.lists(IMAGE | JSON, max_size=4),
    st.lists(ANNOTATION | JSON, max_size=6),
    st.lists(CATEGORY | JSON, max_size=3),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_coco_file_is_read_or_refused_in_our_words(
    tmp_path_factory: pytest.TempPathFactory,
    images: list[object],
    annotations: list[object],
    categories: list[object],
) -> None:
    """A COCO file holds any JSON in any place: it becomes an index or an error of ours."""
    folder = tmp_path_factory.mktemp("coco")
    write_picture(folder / "a.png", make_picture(0, 8, 8))
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, *images],
        "annotations": annotations,
        "categories": categories,
    }
    (folder / "x.json").write_text(json.dumps(content))
    try:
        index = build_index(folder / "x.json")
    except LightwellError:
        return
    assert "ok" in index.table["status"].to_pylist() or len(index)


@given(st.text(alphabet=st.sampled_from("0123456789.-+e nainf\n\t|,;"), max_size=60))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_of_a_yolo_label_costs_its_lines_at_most(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    """A label file holds any text: the image stays usable, and its boxes lie inside it."""
    folder = tmp_path_factory.mktemp("yolo")
    write_picture(folder / "images" / "a.png", make_picture(0, 8, 8))
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text(text)
    index = build_index(folder, annotations="yolo")
    assert index.table["status"].to_pylist() == ["ok"]
    for x0, y0, x1, y1 in index.table["boxes"].to_pylist()[0]:
        assert 0 <= x0 < x1 <= 8
        assert 0 <= y0 < y1 <= 8
