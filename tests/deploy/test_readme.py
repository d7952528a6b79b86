"""Every command of deploy/README.md: run where it can be, else parsed with all the files that it names."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import typer
from clusters import command_line, free_port, processes, wait_until
from documented_commands import check, commands_by_section

HERE, DYING = "On this machine", "Node failures"
RUN_THERE_TOO = ("curl",)
"""Commands of other sections that are run on the cluster of the first one."""


def sections(root: Path) -> dict[str, list[str]]:
    """The commands of the README by the title they stand under."""
    return commands_by_section(root / "deploy" / "README.md")


def test_every_command_elsewhere_can_be_parsed_and_its_files_are_there(root: Path) -> None:
    found = [
        command
        for title, commands in sections(root).items()
        if title not in (HERE, DYING)
        for command in commands
    ]
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
    commands = sections(root)
    extra = [
        f"{command} > curl.txt"
        for title, found in commands.items()
        if title != HERE
        for command in found
        if command.startswith(RUN_THERE_TOO)
    ]
    told = run([*commands[HERE][:-1], *extra, commands[HERE][-1]], tmp_path, limit_s=240)
    assert (tmp_path / "runs" / "audit" / "report.html").is_file()
    assert list((tmp_path / "runs" / "shards").glob("*.tar"))
    assert "already ended" in told
    assert "ray_node_cpu_utilization" in (tmp_path / "curl.txt").read_text()
    assert json.loads(re.findall(r"\{.*?\n\}", told, re.DOTALL)[-1])["status"] == "SUCCEEDED"


@pytest.mark.fault("the demo on two nodes: one killed in training, one in the audit")
@pytest.mark.ray
@pytest.mark.slow
def test_nodes_that_die_change_no_record_and_the_report_is_there(root: Path, tmp_path: Path) -> None:
    told = run(sections(root)[DYING], tmp_path, limit_s=900)
    assert "epoch 2/2" in told
    assert told.count("Killed") >= 2
    assert told.count("SUCCEEDED, exit code 0") == 2
    audit = told[told.rindex("Running entrypoint") :]
    assert "retries remaining" in audit or "marked dead" in audit, "the node died too late to matter"


def run(commands: list[str], folder: Path, *, limit_s: float) -> str:
    """Run commands in a shell, with other ports and folders, since another cluster may have those of the README.

    The last one ends the head node; nothing of the cluster is left afterwards.
    """
    assert commands[-1] == "kill %1"
    text = "\n".join(["set -em", *commands, "wait %1 || true"])
    for port in {"6379", "8265", "8080"} & set(re.findall(r"\d{4}", text)):
        text = text.replace(port, str(free_port()))
    temporary = Path(tempfile.mkdtemp(prefix="lw"))  # short: sockets lie below, whose paths have 107 bytes
    ours = "--min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0 --object-store-memory=300000000"
    text = text.replace("--disable-usage-stats", f"--disable-usage-stats {ours}").replace(
        "/tmp/ray-", f"{temporary}/"
    )
    text = text.replace(
        "--head", f"--head --temp-dir={temporary}/head --ray-client-server-port={free_port()}"
    )
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    log = folder / "told.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            ["bash", "-c", text],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        process.wait(timeout=limit_s)
        assert process.returncode == 0, log.read_text()[-5000:]
        wait_until(lambda: not ours_of(temporary), 30, "the end of all nodes")
    finally:
        process.kill()
        for pid in ours_of(temporary):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(temporary, ignore_errors=True)
    return log.read_text()


def ours_of(folder: Path) -> list[int]:
    """Find the processes whose command lines name a folder."""
    return [pid for pid in processes() if str(folder) in command_line(pid)]
