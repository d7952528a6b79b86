"""Maps on the original picture: a cell of the map lies where its pixels come from, whatever the plan's geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightwell
import numpy as np
import pytest
from lightwell.models.explain.photo_maps import MAX_SIDE, draw_evidence, draw_on_photo
from lightwell.pipeline.compiler.program import Program
from lightwell.pipeline.compiler.view_geometry import view_geometry
from lightwell.pipeline.errors import ModelError, SourceError
from lightwell.pipeline.plan.plan import Plan
from pictures import make_picture
from PIL import Image
from trained import RESIZE_AND_CROP, save_trained

CROPPED = [{"SmallestMaxSize": {"max_size": 96}}, {"CenterCrop": {"height": 64, "width": 64}}]
PADDED = [{"LongestMaxSize": {"max_size": 64}}, {"PadIfNeeded": {"min_height": 64, "min_width": 64}}]
FLIPPED = [{"Resize": {"height": 64, "width": 64}}, {"HorizontalFlip": {"p": 1.0}}, {"Normalize": {}}]
TURNED = [{"Transpose": {"p": 1.0}}, {"Resize": {"height": 48, "width": 96}}, {"ToGray": {"p": 1.0}}]


def compiled(preprocess: list[dict[str, Any]]) -> Program:
    return Program.compile(Plan(index=Path("unused.parquet"), preprocess=preprocess))


@pytest.mark.parametrize("preprocess", [CROPPED, PADDED, FLIPPED, TURNED, []])
def test_a_mark_in_the_photo_is_found_where_the_model_saw_it(preprocess: list[dict[str, Any]]) -> None:
    program = compiled(preprocess)
    photo = np.zeros((120, 200, 3), np.uint8)
    photo[50:60, 90:100] = 255  # what the model sees of it becomes the map
    view = program.compose(augment=False)(image=photo)["image"][..., 0].astype(np.float32)
    found = draw_on_photo(program, photo, view)
    assert found.is_photo
    assert found.pixels.shape == photo.shape
    bright = np.argwhere(np.nan_to_num(found.evidence) > 0.5 * view.max())
    assert np.abs(bright.mean(0) - (54.5, 94.5)).max() < 1.6
    assert len(bright) == pytest.approx(100, rel=0.35)
    seen = {id(CROPPED): 64 * 64 / (96 * 160)}.get(id(preprocess), 1.0)
    assert np.isfinite(found.evidence).mean() == pytest.approx(seen, abs=0.03)


def test_geometry_that_is_not_affine_gives_the_input_of_the_model() -> None:
    program = compiled(
        [
            {"OpticalDistortion": {"distort_limit": [0.3, 0.3], "p": 1.0}},
            {"Resize": {"height": 32, "width": 32}},
        ]
    )
    assert view_geometry(program, (120, 200)) is None
    found = draw_on_photo(program, np.zeros((120, 200, 3), np.uint8), np.ones((4, 4), np.float32))
    assert not found.is_photo
    assert found.pixels.shape == (32, 32, 3)
    assert (found.evidence == 1).all()


def test_large_photos_are_reduced_and_the_unseen_part_is_dimmed() -> None:
    found = draw_on_photo(
        compiled(CROPPED), np.full((1500, 3000, 3), 200, np.uint8), np.zeros((7, 7), np.float32)
    )
    assert found.pixels.shape == (MAX_SIDE // 2, MAX_SIDE, 3)
    drawn = found.overlay()
    assert (drawn[256, 512] == 200).all(), "without evidence the picture stays"
    assert (drawn[:, 0] == 90).all()
    evidence = np.array([[1.0, -1.0]], np.float32)
    drawn = draw_evidence(np.full((1, 2, 3), 90, np.uint8), evidence)
    assert np.abs(drawn[0, 0].astype(int) - 90).max() > 60
    assert (drawn[0, 1] == 90).all(), "evidence against the class is not drawn"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("one")
    Image.fromarray(make_picture(1, height=120, width=160)).save(root / "cat.png")
    return save_trained(root / "best.safetensors", Plan(index=root / "none.parquet", **RESIZE_AND_CROP))


def test_one_call_explains_a_file_or_an_array(checkpoint: Path, tmp_path: Path) -> None:
    photo = checkpoint.parent / "cat.png"
    predictor = lightwell.load(checkpoint)
    found = lightwell.explain_image(checkpoint, photo)
    (predicted,) = predictor([photo])
    assert (found.label, found.probability) == (
        predicted.label,
        pytest.approx(predicted.probability, abs=1e-5),
    )
    of_array = lightwell.explain_image(predictor, np.asarray(Image.open(photo)))
    assert np.allclose(of_array.map, found.map, atol=1e-4 * np.abs(found.map).max())
    assert found.overlay().shape == (120, 160, 3)
    found.save(tmp_path / "new" / "cat.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "cat.png")), found.overlay())
    assert found._repr_png_().startswith(b"\x89PNG"), "shown by notebooks"
    assert "pixels" not in repr(found)


def test_one_call_explains_a_named_class_by_a_named_method_and_layer(checkpoint: Path) -> None:
    photo, predictor = checkpoint.parent / "cat.png", lightwell.load(checkpoint)
    first, second = predictor.classes[:2]
    for_first = lightwell.explain_image(predictor, photo, first)
    for_second = lightwell.explain_image(
        predictor, photo, second, method="layer-cam", target_layer=for_first.target_layer
    )
    assert (for_first.label, for_second.label) == (first, second)
    assert not np.array_equal(for_first.map, for_second.map)
    with pytest.raises(ModelError, match="target: expected a class of the model, got 'no such class'"):
        lightwell.explain_image(predictor, photo, "no such class")
    with pytest.raises(SourceError, match=r"missing\.png: cannot be opened"):
        lightwell.explain_image(predictor, checkpoint.parent / "missing.png")
