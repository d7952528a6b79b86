"""``lightwell explain`` prints of typical plans what is kept in ``tests/snapshots/explain``, as a table and as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from lightwell.cli.app import app
from snapshot import Snapshots
from typer.testing import CliRunner

INDEX = "index: index.parquet\n"
PLANS = {
    "empty": INDEX,
    "decoded-in-regions": """
augment: [{RandomResizedCrop: {size: [224, 224]}}, HorizontalFlip]
evaluate: [{SmallestMaxSize: {max_size: 256}}, {CenterCrop: {height: 224, width: 224}}]
""",
    "decoded-exactly": """
preprocess: [{Resize: {height: 64, width: 64}}, Normalize]
decode: exact
""",
    "nested-choices": """
augment:
  - OneOf: {transforms: [{GaussianBlur: {p: 1}}, {Sequential: {transforms: [ToGray, {Rotate: {limit: 30}}]}}], p: 0.3}
  - SomeOf: {transforms: [HorizontalFlip, VerticalFlip, Transpose], n: 2}
""",
    "cached": """
preprocess: [{SmallestMaxSize: {max_size: 160}}, {CenterCrop: {height: 128, width: 128}}]
augment: [HorizontalFlip]
cache: {dir: scratch, format: jpeg, quality: 90}
""",
    "cached-whole": "augment: [HorizontalFlip]\ncache: scratch\n",
    "sampled-and-mixed": """
augment: [{RandomCrop: {height: 64, width: 64, pad_if_needed: true}}]
sampling: {weights: {cat: 2, dog: 1}}
mix: {kind: CutMix, alpha: 1.0, p: 0.5}
batch: {size: 16}
""",
    "annotated": """
preprocess: [{LongestMaxSize: {max_size: 640}}, {PadIfNeeded: {min_height: 640, min_width: 640}}]
augment: [{BBoxSafeRandomCrop: {erosion_rate: 0.2}}]
bbox_params: {min_visibility: 0.3, min_area: 16}
keypoint_params: {remove_invisible: true}
""",
    "from-pixels": "augment: [HEStain, {CropNonEmptyMaskIfExists: {height: 64, width: 64}}, HorizontalFlip]\n",
    "on-a-gpu": """
preprocess: [{Normalize: {mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}}]
augment: [{RandomResizedCrop: {size: [224, 224]}}, HorizontalFlip, {ColorJitter: {p: 0.8}}]
device: gpu
resources: {cpus: 2, gpus: 0.5}
""",
    "partly-on-a-gpu": """
augment: [{RandomResizedCrop: {size: [224, 224], interpolation: 2}}, RandomFog, {Rotate: {limit: 20}}]
device: gpu
""",
    "approximate-on-a-gpu": """
augment: [{RandomResizedCrop: {size: [224, 224], interpolation: 2}}, RandomBrightnessContrast]
device: gpu
lowering: approximate
""",
}


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["explain", *words])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_is_explained_as_it_is_kept(
    name: str, snapshots: Snapshots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = PLANS[name].strip()
    Path("plan.yaml").write_text(text if text.startswith("index") else f"{INDEX}{text}\n")
    table = re.sub(r" +$", "", run("plan.yaml"), flags=re.MULTILINE)
    as_json = run("plan.yaml", "--json")
    assert [step["cost_share"] for step in json.loads(as_json)] == [None] * len(json.loads(as_json))
    snapshots.check(
        f"explain/{name}",
        f"{text}\n\n$ lightwell explain plan.yaml\n{table}\n$ lightwell explain plan.yaml --json\n{as_json}",
    )


def test_every_file_of_explanations_is_of_a_plan(snapshots: Snapshots) -> None:
    snapshots.check_names("explain", set(PLANS))
