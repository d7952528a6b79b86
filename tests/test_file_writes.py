"""Files are written whole: one module writes and renames, all others call it."""

from __future__ import annotations

import ast
import re
from pathlib import Path, PurePosixPath

import pytest

WRITES_FILES = {
    "pipeline.atomic_io",
    # Writes many shards at a time without waiting for the disk; their names are known only when they are whole.
    "pipeline.cache.writer",
}
APPENDS = {"append_quarantine", "append"}
"""Functions that add lines to a file whose readers pass over half a line at its end."""


def writes_by_hand(tree: ast.AST) -> list[str]:
    """Find calls that write or rename files without ``atomic_io``."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute | ast.Name):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        is_method = isinstance(node.func, ast.Attribute)
        texts = [
            arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
        ]
        writes = is_method and name in ("write_text", "write_bytes")
        writes |= name in ("open", "fdopen") and any(
            re.fullmatch(r"[wxa]b?\+?|r\+b?", text) for text in texts
        )
        writes |= is_method and name in ("rename", "replace") and len(node.args) == 1 and not texts
        writes |= ast.unparse(node.func) in ("os.replace", "os.rename", "shutil.move")
        if writes:
            found.append(ast.unparse(node)[:60])
    return found


def test_files_are_written_whole_by_one_module(root: Path, project_files: tuple[str, ...]) -> None:
    found = {}
    for name in project_files:
        path = PurePosixPath(name)
        if path.suffix != ".py" or path.parts[0] in ("tests", "deploy"):
            continue
        module, tree = ".".join(path.with_suffix("").parts), ast.parse((root / name).read_text())
        appends = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name in APPENDS]
        allowed = [call for node in appends for call in writes_by_hand(node)]
        calls = [call for call in writes_by_hand(tree) if call not in allowed]
        if calls and module not in WRITES_FILES:
            found[module] = calls
    assert found == {}


@pytest.mark.parametrize(
    "code",
    ["path.write_text(x)", "open(path, 'w')", "path.open('xb')", "aside.replace(path)", "os.replace(a, b)"],
)
def test_the_check_of_writes_finds_them(code: str) -> None:
    assert writes_by_hand(ast.parse(code)) != []


@pytest.mark.parametrize("code", ["text.replace('a', 'b')", "path.open('rb')", "write_text(path, x)"])
def test_the_check_of_writes_passes_others(code: str) -> None:
    assert writes_by_hand(ast.parse(code)) == []
