"""Every wrong request is refused with the message that is kept in ``tests/snapshots/messages``."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from lightwell.cli.app import main
from lightwell.pipeline.errors import RequestError
from lightwell.pipeline.index.build import build_index
from pictures import make_folder
from snapshot import Snapshots
from wrong_requests import COMMANDS, JOBS, PLANS, POLICIES, SOURCES, Wrong, calls

PROGRAM = "python -m pytest.lightwell"
"""What click takes for the name of the program in a test."""
AREAS = {"plans": PLANS, "policies": POLICIES, "sources": SOURCES, "jobs": JOBS, "commands": COMMANDS}
FRACTIONS = {"train": 0.5, "val": 0.25, "test": 0.25}
GOOD = {
    "plan.yaml": "index: index.parquet\npreprocess: [{Resize: {height: 32, width: 32}}]\n",
    "train.yaml": "plan: plan.yaml\nmodel: {name: resnet18, weights: none}\n",
    "audit.yaml": "plan: plan.yaml\nmodel: {name: resnet18, weights: none}\nuntrained: allow\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with photos, index and good files, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    build_index(make_folder(tmp_path / "photos", num_images=40), fractions=FRACTIONS).save("index.parquet")
    hook = sys.unraisablehook
    yield tmp_path
    sys.unraisablehook = hook


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def refusal(
    wrong: Wrong, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Run a command as the shell does; what it was given, what it prints and its exit code."""
    write(folder, {**GOOD, **wrong.files})
    monkeypatch.setattr(sys, "argv", ["lightwell", *shlex.split(wrong.command)])
    with pytest.raises(SystemExit) as stop:
        main()
    printed = capsys.readouterr()
    for name in wrong.files:
        (folder / name).unlink()
    files = [f"  {name}: {line}" for name, text in wrong.files.items() for line in text.splitlines() or [""]]
    said = (
        (printed.out + printed.err).replace(str(folder), "FOLDER").replace(PROGRAM, "lightwell").splitlines()
    )
    return "\n".join([f"$ lightwell {wrong.command}", *files, *said, f"exit code {stop.value.code}", ""])


@pytest.mark.parametrize("area", AREAS)
def test_a_wrong_request_is_refused_with_the_message_that_is_kept(
    area: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    snapshots: Snapshots,
) -> None:
    found = [refusal(wrong, folder, monkeypatch, capsys) for wrong in AREAS[area]]
    snapshots.check(f"messages/{area}", "\n".join(found))


def test_a_wrong_call_is_refused_with_the_message_that_is_kept(folder: Path, snapshots: Snapshots) -> None:
    write(folder, GOOD)
    found = []
    for written, call in calls(folder).items():
        with pytest.raises(RequestError) as error:
            call()
        message = str(error.value).replace(str(folder), "FOLDER")
        found.append(f">>> {written}\n{type(error.value).__name__}: {message}\n")
    snapshots.check("messages/python", "\n".join(found))


def test_every_file_of_messages_is_of_an_area(snapshots: Snapshots) -> None:
    snapshots.check_names("messages", {*AREAS, "python"})


@pytest.mark.parametrize("area", AREAS)
def test_every_message_that_is_kept_says_what_was_expected_or_what_to_do(
    area: str, snapshots: Snapshots
) -> None:
    text = (snapshots.folder / "messages" / f"{area}.txt").read_text()
    blocks = re.split(r"\n\n(?=\$ )", text)
    assert len(blocks) == len(AREAS[area])
    assert [block for block in blocks if "exit code 2" not in block] == []
    assert [block for block in blocks if not names_a_cure(block.splitlines()[:-1])] == []


def names_a_cure(lines: Sequence[str]) -> bool:
    message = " ".join(lines)
    return "; " in message or "Try 'lightwell" in message
