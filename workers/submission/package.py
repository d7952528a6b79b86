"""This very Lightwell, as it goes along with a job.

Ray would install a wheel together with all that it depends on, from an index that a cluster may not reach. The cluster
has the dependencies already, so the wheel is unpacked here and goes along as it would lie in ``site-packages``: the
package, and the metadata that names its jobs. Equal code gives equal files, which Ray then ships once.
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
LEFT_OUT = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})
"""Notes of an installation that say nothing on another machine, or too much of this one."""
A_DATE = "315532800"
"""1980, where zip files begin: a wheel must not differ by when it was built."""


def lay_out_package(folder: Path) -> tuple[Path, ...]:
    """Put package and metadata into an empty folder, out of the checkout or of the installation that runs.

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
        for name in LEFT_OUT:
            (info / name).unlink(missing_ok=True)
    return tuple(sorted(path for path in folder.iterdir() if path.is_dir()))


def is_checkout(root: Path) -> bool:
    """Say whether the package runs out of its source tree."""
    declared = root / "pyproject.toml"
    return declared.is_file() and tomllib.loads(declared.read_text()).get("project", {}).get("name") == NAME


def build_wheel(root: Path, folder: Path) -> Path:
    """Build the wheel of a checkout with what is installed here; neither network nor checkout is touched.

    Raises:
        RunError: it cannot be built.
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
    done = subprocess.run(  # noqa: S603  (our own words)
        [sys.executable, "-m", *build, "-w", str(folder), str(source)],
        env={**os.environ, "SOURCE_DATE_EPOCH": A_DATE},
        check=False,
        capture_output=True,
        text=True,
    )
    shutil.rmtree(source)
    if done.returncode:
        reason = " ".join(done.stderr.split())[-500:]
        raise RunError(
            f"submit: expected the wheel of {str(root)!r}, got no build of it ({reason}); see whether pip works"
        )
    (wheel,) = folder.glob("*.whl")
    return wheel


def copy_source(root: Path, target: Path) -> None:
    """Copy what the wheel is built from: the declared packages and what the declaration names."""
    declared = tomllib.loads((root / "pyproject.toml").read_text())
    for package in declared["tool"]["setuptools"]["packages"]:
        inside = Path(*package.split(".")[1:])
        (target / inside).mkdir(parents=True, exist_ok=True)
        for path in (root / inside).iterdir():
            if path.is_file() and not path.name.startswith("."):
                shutil.copy2(path, target / inside / path.name)


def copy_installed(folder: Path) -> None:
    """Copy the files that the installation notes as its own."""
    found = metadata.distribution(NAME)
    for file in found.files or ():
        inside = file.parts[0] == NAME or file.parts[0].endswith(".dist-info")
        if inside and "__pycache__" not in file.parts:
            target = folder / Path(*file.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(str(found.locate_file(file))), target)
