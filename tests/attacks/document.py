"""Writes README.md: what was tried by hostile input, from the tests of this folder. ``python tests/attacks/document.py``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
HEAD = """# Attacks

What hostile input was tried on each surface, and what has to happen; every row is a test of this folder that runs in
`make test`. [SECURITY.md](../../SECURITY.md) says who may do what, and what is not defended. This file is written by
`python tests/attacks/document.py`, and a test compares it.
"""


def attacks(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of every test of a file with its docstring in one line."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.name, " ".join((ast.get_docstring(node) or "").split())


def surfaces() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Map every file of tests to its surface, the first line of its docstring, and to its attacks."""
    found = {}
    for path in sorted(FOLDER.glob("test_*.py")):
        if path.name == "test_document.py":
            continue
        if listed := list(attacks(path)):
            surface = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]
            found[path.name] = surface, listed
    return found


def document() -> str:
    """Write the table."""
    parts = [HEAD]
    for name, (surface, listed) in surfaces().items():
        parts.append(
            f"## {surface.rstrip('.')}\n\n`{name}`\n\n| attack, and what has to happen | test |\n|---|---|"
        )
        parts[-1] += (
            "".join(f"\n| {told.replace('|', chr(92) + '|')} | `{test}` |" for test, told in listed) + "\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    (FOLDER / "README.md").write_text(document(), encoding="utf-8")
