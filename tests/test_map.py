"""ARCHITECTURE.md says where things are: every module of the package is on its map, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

MAP = "## Where each noun lives"


def test_every_module_is_on_the_map(root: Path, project_files: tuple[str, ...]) -> None:
    """The rules of single transforms are listed in TRANSFORMS.md, and folders stand for their ``__init__``."""
    rows = (root / "ARCHITECTURE.md").read_text().split(MAP, 1)[1]
    named = {word for code in re.findall(r"`([^`]+)`", rows) for word in re.findall(r"\w+", code)}
    modules = [PurePosixPath(name) for name in project_files if name.endswith(".py")]
    left_out = {"tests", "deploy", ".ci"}
    missing = [
        str(path)
        for path in modules
        if path.parts[0] not in left_out and path.stem != "__init__" and "ops" not in path.parts
        if path.stem not in named
    ]
    assert missing == [], "say in ARCHITECTURE.md what they are for"


def test_every_module_on_the_map_is_there(root: Path, project_files: tuple[str, ...]) -> None:
    stems = {PurePosixPath(name).stem for name in project_files} | {
        part for name in project_files for part in PurePosixPath(name).parts
    }
    rows = (root / "ARCHITECTURE.md").read_text().split(MAP, 1)[1].split("## ", 1)[0]
    named = {word for word in re.findall(r"`([\w/.]+)`", rows) if not word.endswith("/")}
    gone = {word for word in named if PurePosixPath(word).name.removesuffix(".py") not in stems}
    assert gone == set()
