"""Packages the running Lightwell for upload with a job.

Ray would install a wheel with all its dependencies, from a package index that the cluster may not reach. The dependencies
are already installed there, so the wheel is unpacked locally and uploaded as in ``site-packages``: the package, and the
metadata with its entry points. Equal code gives equal files, which Ray uploads once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

from ...pipeline.errors import RunError

ROOT = Path(__file__).resolve().parents[2]
NAME = "lightwell"
EXCLUDED_METADATA = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})
"""Metadata files of an installation that are meaningless elsewhere, or contain local paths."""
SOURCE_DATE = "315532800"
"""1980, the earliest date in zip files: makes wheels reproducible."""


def copy_package(folder: Path) -> tuple[Path, ...]:
    """Copy package and metadata into an empty folder, from the running checkout or installation.

    Raises:
        RunError: the wheel cannot be built.
    """
    if is_checkout(ROOT):
        wheel = build_wheel(ROOT, folder)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        wheel.unlink()
    else:
        copy_installed(folder)
    for info in folder.glob("*.dist-info"):
        for name in EXCLUDED_METADATA:
            (info / name).unlink(missing_ok=True)
    return tuple(sorted(path for path in folder.iterdir() if path.is_dir()))


def is_checkout(root: Path) -> bool:
    """Return whether the package runs from its source tree."""
    declared = root / "pyproject.toml"
    return declared.is_file() and tomllib.loads(declared.read_text()).get("project", {}).get("name") == NAME


def build_wheel(root: Path, folder: Path) -> Path:
    """Build the wheel of a checkout, without network access and without changing the checkout.

    Raises:
        RunError: the build failed.
    """
    source = folder / "source"
    copy_source(root, source)
    build = [
        "pip",
        "wheel",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
    ]
    done = subprocess.run(  # noqa: S603  (fixed arguments)
        [sys.executable, "-m", *build, "-w", str(folder), str(source)],
        env={**os.environ, "SOURCE_DATE_EPOCH": SOURCE_DATE},
        check=False,
        capture_output=True,
        text=True,
    )
    shutil.rmtree(source)
    if done.returncode:
        reason = " ".join(done.stderr.split())[-500:]
        raise RunError(
            f"submit: expected to build the wheel of {str(root)!r}, got an error ({reason}); check that pip works"
        )
    (wheel,) = folder.glob("*.whl")
    return wheel


def copy_source(root: Path, target: Path) -> None:
    """Copy the sources of the wheel: the declared packages and the project files."""
    declared = tomllib.loads((root / "pyproject.toml").read_text())
    for package in declared["tool"]["setuptools"]["packages"]:
        inside = Path(*package.split(".")[1:])
        (target / inside).mkdir(parents=True, exist_ok=True)
        for path in (root / inside).iterdir():
            if path.is_file() and not path.name.startswith("."):
                shutil.copy2(path, target / inside / path.name)


def copy_installed(folder: Path) -> None:
    """Copy the files recorded by the installation."""
    result = metadata.distribution(NAME)
    for file in result.files or ():
        inside = file.parts[0] == NAME or file.parts[0].endswith(".dist-info")
        if inside and "__pycache__" not in file.parts:
            target = folder / Path(*file.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(str(result.locate_file(file))), target)
