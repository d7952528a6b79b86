"""``lightwell predict`` and ``evaluate``: a checkpoint on other images, without its plan."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from commands import lightwell
from lightwell import Plan, build_index
from pictures import make_folder, make_picture, write_picture
from trained import RESIZE_AND_CROP, save_trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, class folders with an index and a plan, and loose files."""
    folder = tmp_path_factory.mktemp("prediction")
    build_index(make_folder(folder / "photos", num_images=10), fractions={"train": 0.5, "test": 0.5}).save(
        folder / "index.parquet"
    )
    plan = Plan(index=folder / "index.parquet", **RESIZE_AND_CROP)
    plan.save(folder / "plan.yaml")
    save_trained(folder / "best.safetensors", plan)
    for number in range(3):
        write_picture(folder / "loose" / f"{number}.png", make_picture(number))
    (folder / "loose" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def classes(out: Path) -> dict[str, str]:
    with (out / "predictions.csv").open() as file:
        return {row["key"]: row["class"] for row in csv.DictReader(file)}


def test_files_and_their_folder_have_the_same_predictions(folder: Path, tmp_path: Path) -> None:
    files = sorted(path.relative_to(folder) for path in (folder / "loose").iterdir())
    done = lightwell("predict", "best.safetensors", *files, "--out", tmp_path / "files", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "predicted 3 of 4 images" in done.stdout
    done = lightwell(
        "predict", "best.safetensors", "loose", "--out", tmp_path / "folder", "--json", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["images"] == 4
    assert found["unusable"] == 1
    by_file, by_folder = classes(tmp_path / "files"), classes(tmp_path / "folder")
    assert {Path(key).name: name for key, name in by_file.items()} == by_folder
    assert by_folder["damaged.png"] == ""


def test_an_index_and_a_plan_of_it_are_evaluated_alike(folder: Path, tmp_path: Path) -> None:
    found = []
    for data in ("index.parquet", "plan.yaml"):
        out = tmp_path / data
        done = lightwell("evaluate", "best.safetensors", data, "--out", out, "--json", cwd=folder)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
        assert json.loads((out / "evaluation.json").read_text()) == found[-1]
    assert found[0] == found[1]
    assert found[0]["split"] == "test"
    (folder / "run.json").write_text(json.dumps({"index": str(folder / "index.parquet")}))
    done = lightwell("evaluate", "best.safetensors", "--out", tmp_path / "trained", "--json", cwd=folder)
    (folder / "run.json").unlink()
    assert json.loads(done.stdout) == found[0]
    done = lightwell(
        "evaluate",
        "best.safetensors",
        "plan.yaml",
        "--split",
        "",
        "--tta",
        2,
        "--out",
        tmp_path / "all",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    assert "balanced accuracy" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "best.safetensors", "empty"], "expected a folder with images"),
        (["predict", "best.safetensors", "notes"], "none of them usable"),
        (["predict", "best.safetensors", "none.jpg"], "none.jpg"),
        (["predict", "plan.yaml", "loose"], "expected a safetensors file"),
        (["predict", "best.safetensors", "loose", "--tta", "3"], "tta: expected a plan with `augment`"),
        (["predict", "best.safetensors", "loose", "--tta", "mirror"], "tta"),
        (["evaluate", "best.safetensors", "loose", "--split", ""], "use `lightwell predict`"),
        (["evaluate", "best.safetensors"], "expected a plan, an index or a folder"),
    ],
)
def test_what_cannot_be_predicted_is_refused(
    folder: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "notes").mkdir(exist_ok=True)
    (folder / "notes" / "a.jpg").write_text("no picture")
    done = lightwell(*words, "--out", tmp_path / "out", cwd=folder)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert not list((tmp_path / "out").glob("predictions*"))
