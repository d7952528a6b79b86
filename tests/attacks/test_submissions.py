"""What a job file or a package of a stranger can make ``lightwell submit`` send away."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from lightwell.cli.app import main
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.index.build import build_index
from lightwell.workers.submission.declared_files import Document
from lightwell.workers.submission.modules import ModuleFiles
from lightwell.workers.submission.working_dir import WorkingDir
from pictures import make_folder

PLAN = "index: index.parquet\npreprocess: [{Resize: {height: 16, width: 16}}]\nbatch: {size: 8}\n"
SECRET = "-----BEGIN PRIVATE KEY-----"


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with secrets, which is the current one, and a job that was unpacked in it."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / "id.pem").write_text(SECRET)
    (home / ".ssh" / "id_ed25519").write_text(SECRET)
    (home / "diary.json").write_text("{}")
    job = home / "job"
    job.mkdir()
    build_index(make_folder(tmp_path / "photos", num_images=4)).save(job / "index.parquet")
    (job / "plan.yaml").write_text(PLAN)
    monkeypatch.chdir(home)
    return job


def ship(job: Path, text: str, *, besides: Sequence[Path] = ()) -> WorkingDir:
    (job / "audit.yaml").write_text(text)
    return WorkingDir.of([Document(Path("job/audit.yaml"), "gradcam")], Path.cwd(), ship=besides)


@pytest.mark.parametrize("key", ["title", "credit", "target_layer"])
@pytest.mark.parametrize("secret", ["../id.pem", "../.ssh/id_ed25519", "../diary.json", "inside.json"])
def test_text_that_is_the_name_of_a_file_ships_nothing(downloads: Path, key: str, secret: str) -> None:
    """A job file writes the name of a file into a text field: it stays text, and the shipped folder stays the job's."""
    (downloads / "inside.json").write_text("{}")
    shipment = ship(
        downloads, f"plan: plan.yaml\nmodel: {{name: resnet18, weights: none}}\n{key}: {secret}\n"
    )
    assert set(map(str, shipment.files)) == {"job/audit.yaml", "job/plan.yaml", "job/index.parquet"}
    assert shipment.root == Path.cwd()


@pytest.mark.parametrize(
    "text",
    [
        "plan: plan.yaml\ncheckpoint: ../id.pem\n",
        "plan: plan.yaml\ncheckpoint: ../.ssh/id_ed25519\n",
        "plan: plan.yaml\ncheckpoint: sub/../../id.pem\n",
        "plan: plan.yaml\ntraining_metrics: ../diary.json\ncheckpoint: best.safetensors\n",
        "plan: plan.yaml\nmodel: {name: resnet18, weights: ../weights.pth}\n",
        "plan: ../plan.yaml\nmodel: {name: resnet18, weights: none}\n",
        "plan: {index: index.parquet, augment: {file: ../policy.json}}\nmodel: {name: resnet18, weights: none}\n",
        "plan: {index: ../index.parquet}\nmodel: {name: resnet18, weights: none}\n",
    ],
)
def test_declared_files_outside_the_folder_of_the_job_are_refused(downloads: Path, text: str) -> None:
    """A path field points out of the job's folder: the command is refused, and says how to allow the file by name."""
    home = downloads.parent
    (downloads / "sub").mkdir()
    (downloads / "best.safetensors").write_bytes(b"")
    for name, content in {
        "weights.pth": "",
        "plan.yaml": PLAN,
        "index.parquet": "",
        "policy.json": POLICY,
    }.items():
        (home / name).write_text(content)
    with pytest.raises(PlanError, match=r"expected a file below 'job'.*--ship"):
        ship(downloads, text)


POLICY = json.dumps(
    {
        "__version__": "2.0.8",
        "transform": {"__class_fullname__": "Compose", "p": 1.0, "transforms": [], "bbox_params": None},
    }
)


@pytest.mark.parametrize("target", ["../id.pem", "../.ssh/id_ed25519", "../diary.json"])
def test_links_out_of_the_folder_of_the_job_are_refused(downloads: Path, target: str) -> None:
    """A file of the job's folder is a link to a secret: the command is refused and names where the link leads."""
    (downloads / "best.safetensors").symlink_to(target)
    with pytest.raises(PlanError, match=r"a link to '.*home"):
        ship(downloads, "plan: plan.yaml\ncheckpoint: best.safetensors\n")


@pytest.mark.parametrize(
    "name", [".env", "key.pem", "id_rsa", "server.key", ".hidden/a.safetensors", "store.P12"]
)
def test_private_files_of_the_folder_are_refused(downloads: Path, name: str) -> None:
    """A path field names a key that lies in the job's own folder: the command is refused unless the file is allowed by name."""
    (downloads / name).parent.mkdir(exist_ok=True)
    (downloads / name).write_text(SECRET)
    text = f"plan: plan.yaml\ncheckpoint: {name}\n"
    with pytest.raises(PlanError, match="that is not hidden or named like a key"):
        ship(downloads, text)
    assert Path("job", name) in ship(downloads, text, besides=[downloads / name]).files


def test_only_the_code_of_a_package_goes_along(downloads: Path) -> None:
    """A package holds keys, an .env, dumps and links to secrets: only its code is shipped, and what stays is named."""
    package = downloads / "mine"
    (package / "inner" / "__pycache__").mkdir(parents=True)
    (package / ".git").mkdir()
    code = ["__init__.py", "inner/__init__.py", "inner/job.py", "py.typed"]
    others = [
        ".env",
        "key.pem",
        "credentials.json",
        "dump.sql",
        ".git/config.py",
        "inner/.secret.py",
        "table.csv",
    ]
    for name in (*code, *others, "inner/__pycache__/job.cpython-311.pyc"):
        (package / name).write_text("")
    (package / "stolen.py").symlink_to(downloads.parent / "id.pem")
    (package / "linked").symlink_to(downloads.parent / ".ssh")
    found = ModuleFiles.of(package)
    assert {str(file.relative_to(package)) for file in found.files} == set(code)
    assert {str(file.relative_to(package)) for file in found.excluded} == {*others, "stolen.py"}
    allowed = ModuleFiles.of(package, [package / "table.csv"])
    assert {*allowed.files} - {*found.files} == {package / "table.csv"}


def test_what_is_sent_is_listed_and_can_be_looked_at_without_sending(
    downloads: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reader wants to know what would leave the machine: --dry-run lists every file and asks no server."""
    (downloads / "audit.yaml").write_text(
        "plan: plan.yaml\nmodel: {name: resnet18, weights: none}\ncredit: ../id.pem\n"
    )
    line = [
        "lightwell",
        "submit",
        "--dry-run",
        "--address",
        "http://127.0.0.1:9",
        "--",
        "audit",
        "job/audit.yaml",
    ]
    monkeypatch.setattr(sys, "argv", [*line, "--out", "/shared/out"])
    main_ends_with(0)
    listed = capsys.readouterr().out
    assert [text.split()[1] for text in listed.splitlines() if text.startswith("ships ")] == [
        "job/audit.yaml",
        "job/plan.yaml",
        "job/index.parquet",
    ]
    assert "id.pem" not in listed


def main_ends_with(code: int) -> None:
    with pytest.raises(SystemExit) as stop:
        main()
    assert (stop.value.code or 0) == code
