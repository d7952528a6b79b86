"""How `make test` shares out the tests among its processes."""

from __future__ import annotations

from functools import cache
from pathlib import Path, PurePosixPath

from xdist.scheduler import LoadFileScheduling

ON_CLUSTERS = PurePosixPath("tests/workers")
"""Folder of tests that share a Ray cluster."""
MARK = "pytest.mark.ray"
"""What their modules contain; others in the folder need no cluster."""
LONG = ("tests/workers", "tests/pipeline/transform", "tests/models", "tests/attacks")
"""Folders with files that take a minute, which begin first so that none of them runs alone at the end."""
ROOT = Path(__file__).resolve().parents[1]


@cache
def is_on_cluster(file: str) -> bool:
    """Return whether the tests of a file, relative to the root, belong to those that share a cluster."""
    return PurePosixPath(file).is_relative_to(ON_CLUSTERS) and MARK in (ROOT / file).read_text()


def turn(file: str) -> tuple[bool, int]:
    """Return what sorts files by when they begin."""
    ranks = (rank for rank, folder in enumerate(LONG) if PurePosixPath(file).is_relative_to(folder))
    return not is_on_cluster(file), next(ranks, len(LONG))


class ByFile(LoadFileScheduling):
    """Gives each process one file after the other, and one of them all tests that share a cluster."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return str(ON_CLUSTERS) if is_on_cluster(file) else file
