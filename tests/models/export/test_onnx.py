"""ONNX export: OpenCV's resizing to the level, and the probabilities of torch without Lightwell."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from commands import lightwell
from lightwell import Plan, PlanError, Program, load
from lightwell.models.export.onnx import (
    PixelsToProbabilities,
    export_onnx,
    made_picture,
    probabilities_of,
)
from lightwell.models.export.preprocess import preprocess_of
from lightwell.models.export.resampling import Axis, has_exact_cubic, resize
from lightwell.models.inference.predictor import Predictor
from pictures import write_picture
from trained import save_segmenter, save_trained

NAMES = ("cat", "dog", "owl")


def axis(before: int, after: int) -> Axis:
    before_and_after = (torch.tensor(float(size), dtype=torch.float64) for size in (before, after))
    return Axis(*before_and_after, torch.arange(after, dtype=torch.float64))


@pytest.mark.parametrize("interpolation", [0, 1, 2, 3], ids=["nearest", "linear", "cubic", "area"])
@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((97, 131), (64, 64)),
        ((48, 64), (24, 32)),
        ((90, 120), (30, 40)),
        ((40, 50), (64, 80)),
        ((33, 90), (50, 45)),
        ((64, 64), (64, 64)),
        ((1, 7), (3, 3)),
    ],
)
def test_resizing_is_opencvs(interpolation: int, size: tuple[int, int], wanted: tuple[int, int]) -> None:
    picture = made_picture(3, *size)
    expected = cv2.resize(picture, wanted[::-1], interpolation=interpolation).astype(int)
    images = torch.from_numpy(picture)[None]
    axes = axis(size[0], wanted[0]), axis(size[1], wanted[1])
    found = resize(images, *axes, interpolation, exact_cubic=has_exact_cubic())[0].numpy()
    difference = np.abs(found - expected)
    assert difference.max() <= 1
    exact = interpolation == cv2.INTER_CUBIC and has_exact_cubic()
    assert (difference > 0).mean() < (1e-5 if exact else 1e-3)


POLICIES: dict[str, dict[str, Any]] = {
    "crop": {
        "preprocess": [{"SmallestMaxSize": {"max_size": 48, "interpolation": 2}}],
        "evaluate": [
            {"CenterCrop": {"height": 40, "width": 32}},
            {"Normalize": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25]}},
        ],
    },
    "squash": {"evaluate": [{"Resize": {"height": 40, "width": 40, "interpolation": 3}}]},
    "padded": {
        "preprocess": [
            {"LongestMaxSize": {"max_size": 44, "interpolation": 2}},
            {"PadIfNeeded": {"min_height": 45, "min_width": 48, "fill": [9, 130, 255]}},
        ],
        "evaluate": [{"CenterCrop": {"height": 41, "width": 40}}],
    },
    "two crops of a small area": {
        "preprocess": [{"SmallestMaxSize": {"max_size": 50, "area_for_downscale": "image"}}],
        "evaluate": [
            {"CenterCrop": {"height": 45, "width": 44}},
            {"CenterCrop": {"height": 32, "width": 33}},
        ],
    },
}


@pytest.mark.parametrize("name", POLICIES)
def test_the_exported_transforms_make_the_pixels_of_the_plan(name: str) -> None:
    program = Program.compile(Plan(index="none.parquet", **POLICIES[name]))
    compose, module = program.compose(augment=False), preprocess_of(program)
    for seed, size in enumerate([(97, 131), (131, 97), (96, 96), (48, 50)]):
        picture = made_picture(seed, *size)
        pixels = compose(image=picture)["image"].astype(np.float64) / 255
        if program.normalization is not None:
            pixels = (pixels - program.normalization.mean) / program.normalization.std
        found = module(torch.from_numpy(picture)[None])[0].numpy()
        difference = np.abs(found - pixels.transpose(2, 0, 1))
        assert difference.max() < 1.01 / 255 / 0.2
        assert (difference > 1e-5).mean() < 5e-3


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    plan = Plan(index="none.parquet", **POLICIES["crop"])
    checkpoint = save_trained(folder / "best.safetensors", plan, temperature=2.0, classes=NAMES)
    done = lightwell("export", checkpoint, "--onnx", folder / "model.onnx", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["bytes"] == (folder / "model.onnx").stat().st_size
    assert found["largest_difference"] < 1e-4
    return folder


def test_the_graph_gives_the_probabilities_of_torch_for_pictures_of_any_size(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    predictor = load(exported / "best.safetensors")
    for seed, size in enumerate([(97, 131), (131, 97), (60, 60), (49, 200)]):
        pictures = np.stack([made_picture(seed + other, *size) for other in range(3)])
        (found,) = session.run(None, {"images": pictures})
        assert found.dtype == np.float32
        assert np.abs(found - predictor(pictures).probabilities).max() < 1e-4
        (single,) = session.run(None, {"images": pictures[:1]})
        assert np.abs(single - found[:1]).max() < 1e-6
    facts = {entry.key: entry.value for entry in onnx.load(exported / "model.onnx").metadata_props}
    assert tuple(json.loads(facts["classes"])) == NAMES
    assert facts["temperature"] == "2.0"


PADDED = [{"LongestMaxSize": {"max_size": 32}}, {"PadIfNeeded": {"min_height": 32, "min_width": 48}}]


def test_a_segmentation_network_has_a_map_of_probabilities_for_each_class(tmp_path: Path) -> None:
    plan = Plan(index="none.parquet", evaluate=PADDED)
    path = save_segmenter(tmp_path / "best.safetensors", plan)
    found = export_onnx(path, tmp_path / "model.onnx")
    assert found.largest_difference is not None
    assert found.largest_difference < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    pictures = np.stack([made_picture(seed, 60, 90) for seed in range(2)])
    (probabilities,) = session.run(None, {"images": pictures})
    assert probabilities.shape == (2, 2, 32, 48)
    expected = np.stack([probabilities_of(load(path), picture) for picture in pictures])
    assert np.abs(probabilities - expected).max() < 1e-4


def test_sets_of_labels_have_a_sigmoid_for_each_class(tmp_path: Path) -> None:
    plan = Plan(index="none.parquet", **POLICIES["crop"])
    path = save_trained(tmp_path / "best.safetensors", plan, classes=NAMES, task="multilabel")
    predictor, picture = load(path), made_picture(0, 97, 131)
    assert isinstance(predictor, Predictor)
    module = PixelsToProbabilities(preprocess_of(predictor.program), predictor.model, predictor.outputs)
    with torch.inference_mode():
        found = module(torch.from_numpy(picture)[None]).numpy()
    assert np.abs(found - predictor(picture).probabilities).max() < 1e-4
    assert found.sum() != pytest.approx(1, abs=0.01)


def test_a_picture_that_is_smaller_than_the_crop_is_refused_by_the_graph(tmp_path: Path) -> None:
    program = Program.compile(
        Plan(index="none.parquet", evaluate=[{"CenterCrop": {"height": 40, "width": 40}}])
    )
    module = preprocess_of(program)
    assert module(torch.zeros(1, 41, 60, 3, dtype=torch.uint8)).shape == (1, 3, 40, 40)
    with pytest.raises((IndexError, RuntimeError), match="out of DATA bounds"):
        module(torch.zeros(1, 39, 60, 3, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"ToGray": {"p": 1.0}}], r"evaluate\[0\]: expected .* got ToGray; train with these"),
        (
            [{"Resize": {"height": 8, "width": 8, "interpolation": 4}}],
            r"Resize.interpolation: expected .* got 4",
        ),
        ([{"CenterCrop": {"height": 8, "width": 8, "pad_if_needed": True}}], "CenterCrop with pad_if_needed"),
        (
            [{"SmallestMaxSize": {"max_size": 8}}],
            "expected images of one size, got a resize to one side only; add a CenterCrop or PadIfNeeded",
        ),
        (
            [{"SmallestMaxSize": {"max_size": 8}}, {"PadIfNeeded": {"min_height": 9, "min_width": 9}}],
            r"evaluate\[1\].PadIfNeeded: expected .* got 9 x 9 after images of any size",
        ),
        ([{"SmallestMaxSize": {"max_size_hw": [8, 9]}}], "expected max_size as a number"),
    ],
)
def test_what_a_graph_cannot_hold_is_refused_by_name(steps: list[Any], message: str) -> None:
    program = Program.compile(Plan(index="none.parquet", evaluate=steps))
    with pytest.raises(PlanError, match=message):
        preprocess_of(program)


def test_the_example_of_the_readme_runs_without_lightwell(
    exported: Path,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (example,) = re.findall(r"```python\n(import json\n.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert "lightwell" not in example
    assert len([line for line in example.splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    write_picture(tmp_path / "photo.jpg", made_picture(0, 80, 100))
    (tmp_path / "model.onnx").symlink_to(exported / "model.onnx")
    exec(compile(example, "README.md", "exec"), {})
    expected = load(exported / "best.safetensors")(tmp_path / "photo.jpg")[0]
    name, probability = capsys.readouterr().out.split()
    assert name == expected.label
    assert float(probability) == pytest.approx(expected.probability, abs=2e-3)
