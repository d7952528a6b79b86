"""How `make test` shares out the tests among its processes."""

from __future__ import annotations

from pathlib import PurePosixPath

from xdist.scheduler import LoadFileScheduling

ON_CLUSTERS = PurePosixPath("tests/workers")
"""Folder of tests that share a Ray cluster."""


class ByFile(LoadFileScheduling):
    """Gives each process one file after the other, and one of them all tests that share a cluster."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return str(ON_CLUSTERS) if PurePosixPath(file).is_relative_to(ON_CLUSTERS) else file
