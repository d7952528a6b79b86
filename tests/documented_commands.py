"""Commands in documents: found, and parsed as their own programs would, with all the files that they name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import typer
import yaml
from lightwell.cli.app import app
from lightwell.cli.submit import check_command
from ray.scripts.scripts import cli as ray_cli

KUBECTL = {"apply", "create", "delete", "get", "port-forward", "wait"}
DOCKER = {"build", "run"}
ELSEWHERE = {"curl", "prometheus", "ssh"}


def commands_by_section(document: Path) -> dict[str, list[str]]:
    """The commands of a document by the title they stand under; those above the first title under ''."""
    found: dict[str, list[str]] = {}
    first, *parts = re.split(r"(?m)^## ", document.read_text())
    for part in (f"\n{first}", *parts):
        blocks = re.findall(r"```console\n(.*?)```", part, re.DOTALL)
        found[part.splitlines()[0]] = [line[2:] for block in blocks for line in block.splitlines()]
        assert all(line.startswith("$ ") for block in blocks for line in block.splitlines())
    return found


def words_of(command: str) -> list[str]:
    """Split a command; what is set before it, its comment, where its output goes and ampersands are left out."""
    words = shlex.split(command, comments=True)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    return words[: next((at for at, word in enumerate(words) if word in (">", "&", ";")), len(words))]


def check(command: str, root: Path) -> None:
    """Parse a command as its own program would, and open the files that it names."""
    words = words_of(command)
    for word in words:
        if word.startswith("deploy/"):
            path = root / word
            assert path.is_file(), word
            if path.suffix == ".yaml":
                assert yaml.safe_load(path.read_text())
    match words:
        case ["lightwell", *rest]:
            context = typer.main.get_command(app).make_context("lightwell", list(rest))
            name, found, rest = context.command.resolve_command(context, rest)
            given = found.make_context(name, list(rest), parent=context).params
            if name == "submit":
                check_command(typer.main.get_command(app), given["argv"])
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", (root / "Makefile").read_text(), re.MULTILINE), target
        case ["ray", name, *rest]:
            ray_cli.commands[name].make_context(name, rest)
        case ["docker", name, *_]:
            assert name in DOCKER
        case ["kubectl", name, *_]:
            assert name in KUBECTL
        case ["python", "-c", code]:
            compile(code, "README", "exec")
        case [name, *_]:
            assert name in ELSEWHERE, f"nobody has checked {command!r}"
