"""The distribution: what is declared, pinned, built and installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import lightwell
import pytest
from lightwell.pipeline.jobs.find_job import find_job
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CODE = {"cli", "pipeline", "workers", "models"}
TARGETS = ["install", "demo", "test", "check", "bench"]
UNWANTED = {"albumentationsx", "cleanlab", "opencv-python", "opencv-contrib-python", "ultralytics"}


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    """The declarations in pyproject.toml."""
    return tomllib.loads((root / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, str]:
    """The versions in constraints.txt, by canonical name."""
    lines = [line for line in (root / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    wrong = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9A-Za-z.]+", line)]
    assert wrong == [], "expected name==version lines that name no host, path or local version"
    assert lines == sorted(lines, key=lambda line: line.partition("==")[0].lower())
    found = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    assert len(found) == len(lines)
    return found


def closure(requirements: list[str]) -> dict[str, str]:
    """Follow requirements through what is installed here; return canonical names and versions."""
    todo = [Requirement(text) for text in requirements]
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        for extra in {"", *wanted.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            distribution = metadata.distribution(wanted.name)
            found[name] = distribution.version.partition("+")[0]
            needs = [Requirement(text) for text in distribution.requires or []]
            todo += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    return found


def installed_requirements(project: dict[str, Any]) -> list[str]:
    extras = project["project"]["optional-dependencies"]
    return [*project["project"]["dependencies"], *extras["demo"], *extras["dev"]]


def test_declared_packages_are_those_of_the_tree(
    project: dict[str, Any], project_files: tuple[str, ...]
) -> None:
    paths = [PurePosixPath(name) for name in project_files]
    folders = {path.parent for path in paths if path.suffix == ".py" and path.parts[0] in CODE}
    tree = {"lightwell"} | {".".join(("lightwell", *folder.parts)) for folder in folders}
    assert set(project["tool"]["setuptools"]["packages"]) == tree
    assert {f"{folder}/__init__.py" for folder in folders} <= set(project_files)


def test_installed_version_is_the_declared_one(project: dict[str, Any]) -> None:
    assert metadata.version("lightwell") == project["project"]["version"]


def test_changelog_has_the_declared_version(root: Path, project: dict[str, Any]) -> None:
    assert f"## [{project['project']['version']}]" in (root / "CHANGELOG.md").read_text()


def test_licence_is_the_declared_one(root: Path, project: dict[str, Any]) -> None:
    assert project["project"]["license"] == "Apache-2.0"
    words = " ".join((root / "LICENSE").read_text().split())
    assert words.startswith("Apache License Version 2.0, January 2004")
    assert "END OF TERMS AND CONDITIONS" in words


def test_listed_jobs_can_be_found(project: dict[str, Any]) -> None:
    for name, target in project["project"]["entry-points"]["lightwell.jobs"].items():
        assert find_job(name) is find_job(target)


def test_command_is_installed(project: dict[str, Any]) -> None:
    (command,) = metadata.entry_points(group="console_scripts", name="lightwell")
    assert command.value == project["project"]["scripts"]["lightwell"]
    assert callable(command.load())


def test_every_requirement_has_a_pin_that_fits(project: dict[str, Any], pins: dict[str, str]) -> None:
    for text in installed_requirements(project):
        wanted = Requirement(text)
        assert pins[canonicalize_name(wanted.name)] in wanted.specifier, text


def test_pins_are_what_is_installed_and_nothing_else(project: dict[str, Any], pins: dict[str, str]) -> None:
    assert closure(installed_requirements(project)) == pins


def test_no_unwanted_dependency(pins: dict[str, str], project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"].values()
    declared = {canonicalize_name(Requirement(text).name) for extra in extras for text in extra}
    assert (set(pins) | declared) & UNWANTED == set()


def test_wheel_holds_the_package_and_runs_without_the_checkout(
    root: Path, project_files: tuple[str, ...], tmp_path: Path
) -> None:
    checkout, unpacked, elsewhere = tmp_path / "checkout", tmp_path / "unpacked", tmp_path / "elsewhere"
    for name in project_files:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, checkout / name)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*build, "-w", str(tmp_path), str(checkout)], check=True, capture_output=True, text=True)

    (wheel,) = tmp_path.glob("lightwell-*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    paths = [PurePosixPath(name) for name in project_files]
    top = {
        path for path in paths if len(path.parts) == 1 and (path.suffix == ".py" or path.name == "py.typed")
    }
    below = {path for path in paths if path.parts[0] in CODE}
    assert held == {f"lightwell/{path}" for path in top | below}

    zipfile.ZipFile(wheel).extractall(unpacked)
    elsewhere.mkdir()
    code = "import lightwell.pipeline.errors; print(lightwell.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere,
        env={"PYTHONPATH": str(unpacked)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert Path(done.stdout.strip()) == unpacked / "lightwell" / "__init__.py"


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a terminal, whatever make is running these tests."""
    environment = {
        name: value for name, value in os.environ.items() if "MAKE" not in name and name != "MFLAGS"
    }
    command = ["make", "--no-print-directory", *words]
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("target", TARGETS)
def test_make_knows_the_target_and_the_guide_names_it(root: Path, target: str) -> None:
    assert make(root, "-n", target).returncode == 0
    assert f"make {target}" in (root / "CONTRIBUTING.md").read_text()


def test_make_without_python_says_what_to_do(root: Path, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(root / name, tmp_path / name)
    done = make(tmp_path, "install", "PYTHON=no-such-python")
    assert done.returncode == 2
    assert "expected Python 3.11 or newer, got no 'no-such-python'" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_make_bench_without_data_says_what_to_do(root: Path) -> None:
    done = make(root, "bench", "-o", ".venv/.installed", "DATA=")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "bench: expected a folder with photos, got no DATA; run make bench DATA=dir"
    )


def test_package_is_typed(root: Path) -> None:
    assert (root / "py.typed").is_file()
    assert Path(lightwell.__file__).parent == root
