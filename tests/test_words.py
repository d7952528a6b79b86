"""Public names and the first lines of docstrings use the field's words, not private ones or personification."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

PRIVATE_NAMES = frozenset(
    [
        "answers",
        "asked",
        "assignment",
        "bears",
        "blank",
        "books",
        "clocks",
        "crew",
        "desk",
        "drawing",
        "drawn",
        "examiner",
        "gathering",
        "greet",
        "handed",
        "heap",
        "hear",
        "here",
        "hire",
        "journal",
        "keyed",
        "laps",
        "leads",
        "ledger",
        "lends",
        "lessons",
        "looker",
        "looking",
        "mapped",
        "mourn",
        "objective",
        "pace",
        "packed",
        "packing",
        "partner",
        "peers",
        "piece",
        "portion",
        "rekeyed",
        "room",
        "sightings",
        "spread",
        "standing",
        "stretch",
        "surroundings",
        "tally",
        "tape",
        "telling",
        "told",
        "upkeep",
        "wish",
        "works",
    ]
)
"""Words that no public name contains. Their replacements are in use: feed state, scan checkpoint, reporter, ..."""

PRIVATE_PROSE = re.compile(
    r"\b(who|whom|whoever|tells?|told|hears?|mourns?|looks? at|say|says|borne|bears|of ours|goes? on with|"
    r"is what|what is|what was|what has|what a|what an|what the|stands where|where .* stands?|comes? to an end)\b",
    re.IGNORECASE,
)
"""Personification, and clauses instead of nouns."""


def words_of(name: str) -> set[str]:
    """The lower-case words of a name in snake case, camel case or capitals."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def public_definitions(tree: ast.Module) -> Iterator[tuple[int, str, ast.AST]]:
    """Yield line, name and node of public classes, functions, methods, constants and attributes."""
    stack: list[ast.AST] = [tree]
    while stack:
        parent = stack.pop()
        for node in getattr(parent, "body", []):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                if not node.name.startswith("_"):
                    yield node.lineno, node.name, node
                    if isinstance(node, ast.ClassDef):
                        stack.append(node)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                if not node.target.id.startswith("_"):
                    yield node.lineno, node.target.id, node
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name) and not target.id.startswith("_"):
                        yield node.lineno, target.id, node


@pytest.fixture(scope="module")
def package(root: Path, project_files: tuple[str, ...]) -> dict[str, ast.Module]:
    left_out = {"tests", "deploy", ".ci"}
    return {
        name: ast.parse((root / name).read_text())
        for name in project_files
        if name.endswith(".py") and PurePosixPath(name).parts[0] not in left_out
    }


def test_public_names_have_no_private_words(package: dict[str, ast.Module]) -> None:
    found = [
        f"{name}:{line} {defined}: {', '.join(sorted(words_of(defined) & PRIVATE_NAMES))}"
        for name, tree in package.items()
        for line, defined, _ in [(1, PurePosixPath(name).stem, tree), *public_definitions(tree)]
        if words_of(defined) & PRIVATE_NAMES
    ]
    assert found == []


def test_first_lines_of_docstrings_are_plain(package: dict[str, ast.Module]) -> None:
    found = []
    for name, tree in package.items():
        nodes = [tree, *(node for _, _, node in public_definitions(tree))]
        for node in nodes:
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            if match := PRIVATE_PROSE.search(first):
                found.append(f"{name}:{getattr(node, 'lineno', 1)} {match[0]!r} in {first!r}")
    assert found == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ScanCheckpoint", {"scan", "checkpoint"}),
        ("MAX_LAG_S", {"max", "lag", "s"}),
        ("rows_at", {"rows", "at"}),
    ],
)
def test_names_are_split_into_words(name: str, words: set[str]) -> None:
    assert words_of(name) == words


@pytest.mark.parametrize("line", ["Say whether a row has a mask.", "Who looks at files.", "What is slow."])
def test_private_prose_is_found(line: str) -> None:
    assert PRIVATE_PROSE.search(line)
