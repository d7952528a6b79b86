"""``lightwell init``: its files run as they are, fit the model's weights, and never replace what somebody else wrote."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from commands import lightwell
from lightwell.cli.app import app
from lightwell.pipeline.errors import ModelError, RequestError
from lightwell.pipeline.index.index import Index
from patience import HANG_S
from pictures import make_folder, make_picture, write_picture
from typer.testing import CliRunner

ODD_CLASSES = ("no", "1e3", ": x", "# größe 'a'")
NAMES = ["audit.yaml", "index.parquet", "plan.yaml", "train.yaml"]
SMALL = ("--model", "squeezenet1_1", "--weights", "none")

Init = Callable[..., str]


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Init:
    """Run ``lightwell init`` in this process and in an own folder; returns what it prints, raises what it refuses."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> str:
        done = CliRunner().invoke(app, ["init", *map(str, words)])
        if done.exception is not None:
            raise done.exception
        return done.stdout

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.yaml")}


def test_the_summary_ends_in_commands_that_name_files_which_are_there(init: Init, tmp_path: Path) -> None:
    make_folder(tmp_path / "my phötos", num_images=60)
    printed = init("my phötos", *SMALL)
    next_ones = [shlex.split(line) for line in printed.split("next:\n")[1].splitlines()]
    assert [words[1] for words in next_ones] == ["preview", "train", "audit"]
    assert all((tmp_path / words[2]).is_file() for words in next_ones)
    assert "splits: 80 % train, 10 % val, 10 % test" in printed
    assert "few images: " in printed


def test_a_second_run_says_that_all_is_there_and_touches_no_file(init: Init, tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", num_images=60)
    init("photos")
    before = contents(tmp_path / "runs" / "photos")
    assert sorted(before) == [name for name in NAMES if name.endswith(".yaml")]
    stamps = {name: (tmp_path / "runs" / "photos" / name).stat().st_mtime_ns for name in before}
    assert "unchanged: all files in runs/photos are up to date" in init("photos")
    assert stamps == {name: (tmp_path / "runs" / "photos" / name).stat().st_mtime_ns for name in before}


def test_files_that_nobody_changed_are_written_anew_for_another_model(init: Init, tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", num_images=60)
    init("photos")
    printed = init("photos", "--model", "timm:inception_v3")
    assert "plan.yaml (replaced), train.yaml (replaced)" in printed
    assert "max_size: 341" in (tmp_path / "runs" / "photos" / "plan.yaml").read_text()


def test_new_images_are_taken_up_and_keep_every_other_image_in_its_split(init: Init, tmp_path: Path) -> None:
    photos = make_folder(tmp_path / "photos", num_images=60)
    init("photos")
    path = tmp_path / "runs" / "photos" / "index.parquet"
    before = Index.load(path).table.select(["key", "split"]).to_pylist()
    write_picture(photos / "cat" / "new.jpg", make_picture(99))
    assert "index.parquet (brought up to date)" in init("photos")
    after = Index.load(path).table.select(["key", "split"]).to_pylist()
    assert len(after) == 61
    assert [row for row in after if row["key"] != "cat/new.jpg"] == before


def test_a_file_that_was_changed_stays_unless_force_is_given(init: Init, tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", num_images=60)
    init("photos")
    plan = tmp_path / "runs" / "photos" / "plan.yaml"
    written = plan.read_text()
    plan.write_text(f"{written}# mine\n")
    before = contents(plan.parent)
    with pytest.raises(
        RequestError, match=r"'plan.yaml', got one in 'runs/photos' that was modified"
    ) as printed:
        init("photos", "--model", "vit_b_16")
    assert str(printed.value).endswith("with --force, which keeps the old one")
    assert printed.value.exit_code == 2
    assert contents(plan.parent) == before
    init("photos", "--force")
    assert plan.read_text() == written
    assert plan.with_name("plan.yaml.old").read_text() == f"{written}# mine\n"


@pytest.mark.parametrize("name", ["plan.yaml", "train.yaml", "audit.yaml"])
def test_a_file_of_somebody_else_is_refused_before_anything_is_read(
    init: Init, tmp_path: Path, name: str
) -> None:
    make_folder(tmp_path / "photos", num_images=24)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("precious: true\n")
    with pytest.raises(RequestError, match="that `lightwell init` did not write"):
        init("photos", "--out", "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert (tmp_path / "out" / name).read_text() == "precious: true\n"
    init("photos", "--out", "out", "--force")
    assert (tmp_path / "out" / f"{name}.old").read_text() == "precious: true\n"
    assert "lightwell" in (tmp_path / "out" / "plan.yaml").read_text()


def test_an_index_of_another_source_is_refused(init: Init, tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", num_images=60)
    make_folder(tmp_path / "others", num_images=60)
    init("photos", "--out", "out")
    before = (tmp_path / "out" / "index.parquet").read_bytes()
    with pytest.raises(RequestError, match=r"with one of '.*photos'"):
        init("others", "--out", "out")
    assert (tmp_path / "out" / "index.parquet").read_bytes() == before


@pytest.mark.parametrize(("source", "out"), [(".", None), ("../photos", "."), ("../photos", "cat/new")])
def test_files_never_come_to_lie_among_the_images(
    init: Init, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, out: str | None
) -> None:
    photos = make_folder(tmp_path / "photos", num_images=8)
    before = sorted(photos.rglob("*"))
    monkeypatch.chdir(photos)
    with pytest.raises(RequestError, match="expected a folder outside the images") as printed:
        init(source, *([] if out is None else ["--out", out]))
    assert sorted(photos.rglob("*")) == before
    found = re.search(r"write --out '([^']*)'", str(printed.value))
    assert found is not None
    init(source, "--out", found[1])
    assert (tmp_path / "runs" / "photos" / "plan.yaml").is_file()
    assert sorted(photos.rglob("*")) == before


def test_a_wrong_folder_or_model_leaves_nothing_behind(init: Init, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nowhere"):
        init("nowhere")
    make_folder(tmp_path / "photos", num_images=4)
    with pytest.raises(ModelError, match="did you mean 'resnet50'"):
        init("photos", "--model", "resnet_50")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"] or not list((tmp_path / "runs").iterdir())


def test_a_folder_without_classes_gets_a_plan_and_a_sentence(init: Init, tmp_path: Path) -> None:
    for number in range(8):
        write_picture(tmp_path / "flat" / f"{number}.jpg", make_picture(number))
    (tmp_path / "flat" / "labels.csv").write_text("path,label\n")
    printed = init("flat")
    assert (
        "no train.yaml and no audit.yaml: no image has a class; put the images into one folder per class"
        in printed
    )
    assert "the folder contains 'labels.csv'" in printed
    assert sorted(path.name for path in (tmp_path / "runs" / "flat").glob("[!.]*")) == [
        "index.parquet",
        "plan.yaml",
    ]
    for line in printed.split("next:\n")[1].splitlines():
        done = lightwell(*shlex.split(line)[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_jobs_of_an_earlier_run_go_when_there_are_no_classes_any_more(init: Init, tmp_path: Path) -> None:
    photos = make_folder(tmp_path / "photos", num_images=60)
    init("photos")
    for path in photos.rglob("*.jpg"):
        path.rename(photos / f"{path.parent.name}-{path.name}")
    assert "train.yaml (removed), audit.yaml (removed)" in init("photos")
    assert not (tmp_path / "runs" / "photos" / "train.yaml").exists()


def test_machines_get_json_with_all_that_was_decided(init: Init, tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", num_images=60)
    found = json.loads(init("photos", "--json", "--weights", "best.pth"))
    assert found["files"] == dict.fromkeys(
        ["index.parquet", "plan.yaml", "train.yaml", "audit.yaml"], "written"
    )
    assert found["expects"]["size"] == [224, 224]
    assert found["no_training_because"] is None
    train = yaml.safe_load((tmp_path / "runs" / "photos" / "train.yaml").read_text())
    assert train["model"]["weights"] == str(tmp_path / "best.pth"), "the path counts from where the user was"


def test_the_shell_completes_commands_and_benchmarks_and_leaves_files_to_itself() -> None:
    def completed(words: str) -> list[str]:
        environment = {
            "_LIGHTWELL_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(f"{words}.".split()) - 1),
        }
        command = [
            sys.executable,
            "-c",
            "import sys; sys.argv = ['lightwell']; from lightwell.cli.app import main; main()",
        ]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=HANG_S, check=False
        )
        assert done.stderr == ""
        return done.stdout.split()

    assert completed("lightwell in") == ["init", "index", "inspect"]
    assert completed("lightwell bench ca") == ["cached"]
    assert completed("lightwell cache ") == ["ls", "verify", "prune"]
    assert completed("lightwell explain pl") == []
