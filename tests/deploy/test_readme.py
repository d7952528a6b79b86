"""Every command of deploy/README.md: run where it can be, else parsed with all the files that it names."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from clusters import free_port, processes
from lightwell.cli import app
from lightwell.cli_submit import check_command
from ray.scripts.scripts import cli as ray_cli

HERE = "On this machine"
RUN_THERE_TOO = ("curl",)
"""Commands of other sections that are run on the cluster of the first one."""
KUBECTL = {"apply", "create", "delete", "get", "port-forward", "wait"}
DOCKER = {"build", "run"}
ELSEWHERE = {"prometheus", "ssh"}


def sections(root: Path) -> dict[str, list[str]]:
    """The commands of the README by the title they stand under."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"(?m)^## ", (root / "deploy" / "README.md").read_text())[1:]:
        blocks = re.findall(r"```console\n(.*?)```", part, re.DOTALL)
        found[part.splitlines()[0]] = [line[2:] for block in blocks for line in block.splitlines()]
        assert all(line.startswith("$ ") for block in blocks for line in block.splitlines())
    return found


def words_of(command: str) -> list[str]:
    """Split a command; what is set before it, where its output goes and ampersands are left out."""
    words = shlex.split(command)
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
                check_command(typer.main.get_command(app), given["words"])
        case ["ray", name, *rest]:
            ray_cli.commands[name].make_context(name, rest)
        case ["docker", name, *_]:
            assert name in DOCKER
        case ["kubectl", name, *_]:
            assert name in KUBECTL
        case ["python", "-c", code]:
            compile(code, "README", "exec")
        case [name, *_]:
            assert name in ELSEWHERE | set(RUN_THERE_TOO), f"nobody has checked {command!r}"


def test_every_command_elsewhere_can_be_parsed_and_its_files_are_there(root: Path) -> None:
    found = [command for title, commands in sections(root).items() if title != HERE for command in commands]
    assert len(found) > 15
    for command in found:
        check(command, root)


def test_a_command_with_a_wrong_file_or_option_would_be_seen(root: Path) -> None:
    for command in (
        "kubectl apply -f deploy/kuberay/nowhere.yaml",
        "lightwell submit -- audit audit.yaml --outt /x",
        "ray upp x",
        "helm install x",
    ):
        with pytest.raises((AssertionError, KeyError, typer.BadParameter.__bases__[0])):
            check(command, root)


def test_the_files_of_the_table_are_there(root: Path) -> None:
    text = (root / "deploy" / "README.md").read_text()
    named = re.findall(r"`([\w./-]+)`", text.partition("## ")[0]) + re.findall(r"\]\(([\w./-]+)\)", text)
    files = [name for name in named if "." in name or name.endswith("/")]
    assert len(files) > 6
    assert [
        name
        for name in files
        if not any((root / "deploy" / base / name).exists() for base in ("", "kuberay"))
    ] == []


@pytest.mark.ray
@pytest.mark.slow
def test_the_commands_for_this_machine_run_as_they_stand(root: Path, tmp_path: Path) -> None:
    """With other ports, since another cluster may have those of the README; nothing of it is left afterwards."""
    commands = sections(root)
    script = commands[HERE]
    assert script[-1] == "kill %1"
    extra = [
        command
        for title, found in commands.items()
        if title != HERE
        for command in found
        if command.startswith(RUN_THERE_TOO)
    ]
    text = "\n".join(
        [
            "set -em",
            *script[:-1],
            *(f"{command} > curl.txt" for command in extra),
            script[-1],
            "wait %1 || true",
        ]
    )
    for port in ("6379", "8265", "8080"):
        assert port in text
        text = text.replace(port, str(free_port()))
    others = f"--temp-dir={tmp_path.parent.parent / 'readme'} --ray-client-server-port={free_port()} --dashboard-agent-listen-port=0"
    text = text.replace(
        "--disable-usage-stats", f"--disable-usage-stats --min-worker-port=0 --max-worker-port=0 {others}"
    )
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        ["bash", "-c", text],
        cwd=tmp_path,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        told, _ = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, told + (tmp_path / "head.log").read_text()
    assert (tmp_path / "runs" / "audit" / "report.html").is_file()
    assert list((tmp_path / "runs" / "shards").glob("*.tar"))
    assert '"exit_code": 0' in told
    assert "had ended already" in told
    assert "ray_node_cpu_utilization" in (tmp_path / "curl.txt").read_text()
    assert json.loads(re.findall(r"\{.*?\n\}", told, re.DOTALL)[-1])["status"] == "SUCCEEDED"
    left = [pid for pid in processes() if str(tmp_path.parent.parent / "readme").encode() in cmdline(pid)]
    assert left == []


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
