"""The table of attacks says what the tests of this folder do."""

from __future__ import annotations

from attacks.document import FOLDER, document, surfaces


def test_the_table_is_that_of_the_tests() -> None:
    """Somebody adds or renames an attack: README.md of this folder is written anew, or this test fails."""
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == document(), (
        "python tests/attacks/document.py"
    )


def test_every_attack_is_described() -> None:
    """A test of this folder has no docstring: it is named here."""
    bare = [
        f"{file}::{test}" for file, (_, listed) in surfaces().items() for test, told in listed if not told
    ]
    assert bare == []
