"""Texts under ``tests/snapshots`` that a test compares with; ``pytest --update-snapshots`` writes them."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "snapshots"


@dataclass(frozen=True)
class Snapshots:
    """Compares texts with the stored ones, or stores them."""

    update: bool
    folder: Path = FOLDER

    def check(self, name: str, text: str, *, same: Callable[[str, str], bool] = operator.eq) -> None:
        """Compare a text with the stored one of a name; the failure shows what changed.

        Args:
            name: path below the folder of snapshots, without suffix.
            text: what the test found.
            same: whether a stored text and a found one are equal enough.
        """
        path = self.folder / f"{name}.txt"
        stored = path.read_text() if path.is_file() else ""
        if stored and same(stored, text):
            return
        if self.update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        lines = difflib.unified_diff(stored.splitlines(), text.splitlines(), "stored", "found", lineterm="")
        raise AssertionError(
            "\n".join([f"{path}: if the change is meant, add --update-snapshots to pytest", *lines])
        )

    def check_names(self, folder: str, names: set[str]) -> None:
        """Check that a folder holds the snapshots of these names and no others."""
        stored = {path.stem: path for path in (self.folder / folder).glob("*.txt")}
        if self.update:
            for name in stored.keys() - names:
                stored[name].unlink()
        else:
            assert stored.keys() == names
