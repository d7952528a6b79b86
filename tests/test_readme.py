"""The README: its commands run in order and print what is kept in ``tests/snapshots/readme``, its files are valid."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from documented_commands import check, commands_by_section, words_of
from lightwell.cli.app import app
from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.models.training.job import Classify
from lightwell.pipeline.jobs.job_file import load_job, load_plan
from lightwell.pipeline.jobs.sweep import Sweep
from pictures import make_folder
from snapshot import Snapshots
from typer.testing import CliRunner

RUN_HERE = "From your own folder"
ODD_CLASSES = ("no", "1e3", ": x", "# größe 'a'")
"""Names that YAML would misread."""
SMALL = {"init": ["--model", "squeezenet1_1", "--weights", "none"]}
"""What keeps a command short."""
OF_INTEREST = ("epoch ", "test, ", "warning")
"""How lines on stderr begin that do not depend on the speed of the machine."""


def files_of(readme: Path) -> dict[str, str]:
    """The YAML files in the README, by name."""
    return dict(re.findall(r"```yaml\n# ([\w.]+)\n(.*?)```", readme.read_text(), re.DOTALL))


def without_figures(text: str) -> str:
    """Replace numbers and hashes, and shrink the columns of tables."""
    text = re.sub(r"\b[0-9a-f]{16}\b", "HASH", text)
    text = re.sub(r"(?<![\w.])\d+([.,]\d+)*(e-?\d+)?", "N", text)
    return "".join(f"{' '.join(line.split())}\n" for line in text.splitlines())


def test_the_commands_go_from_a_folder_to_a_report_and_print_what_is_kept(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshots: Snapshots
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    make_folder(tmp_path / "photos", num_images=32, classes=ODD_CLASSES)
    plan = files_of(root / "README.md")["plan.yaml"]
    (tmp_path / "plan.yaml").write_text(
        plan.replace("/scratch/pets", "scratch").replace("size: 32", "size: 8")
    )
    printed = []
    for command in commands_by_section(root / "README.md")[RUN_HERE]:
        _, name, *rest = words_of(command)
        done = CliRunner().invoke(app, [name, *rest, *SMALL.get(name, [])])
        assert done.exit_code == 0, f"{command}\n{done.output}\n{done.exception}"
        assert "the plan differs" not in done.stderr
        told = [line for line in done.stderr.splitlines() if line.startswith(OF_INTEREST)]
        text = "\n".join([*told, done.stdout])
        printed.append(f"$ {' '.join(command.split())}\n{without_figures(text)}")
    snapshots.check("readme/commands", "\n".join(printed))
    report = tmp_path / "runs" / "photos" / "audit"
    assert (report / "report.html").is_file()
    findings = json.loads((report / "findings.json").read_text())
    assert findings["model_classes"]["not_in_model"] == []
    assert findings["num_labelled"] > 0
    assert list((tmp_path / "shards").glob("*.tar"))


def test_every_other_command_can_be_parsed(root: Path) -> None:
    blocks = commands_by_section(root / "README.md")
    elsewhere = [command for title, commands in blocks.items() if title != RUN_HERE for command in commands]
    text = (root / "README.md").read_text()
    elsewhere += re.findall(r"```\n(lightwell .*)\n```", text)
    in_prose = [" ".join(command.split()) for command in re.findall(r"`(lightwell\s[^`|]* --[^`|]*)`", text)]
    elsewhere += [command for command in in_prose if "--out " in command]
    assert len(elsewhere) >= 9
    for command in elsewhere:
        check(command, root)


def test_its_yaml_files_are_a_plan_two_jobs_and_a_sweep(root: Path, tmp_path: Path) -> None:
    files = files_of(root / "README.md")
    assert set(files) == {"plan.yaml", "train.yaml", "audit.yaml", "sweep.yaml"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    plan = load_plan(tmp_path / "plan.yaml")
    train = load_job(tmp_path / "train.yaml", default="classify")
    audit = load_job(tmp_path / "audit.yaml", default="gradcam")
    assert isinstance(train, Classify)
    assert isinstance(audit, GradCamAudit)
    assert plan == train.plan == audit.plan
    assert len(Sweep.load(tmp_path / "sweep.yaml").values()) == 12


def test_the_readme_has_one_file(snapshots: Snapshots) -> None:
    snapshots.check_names("readme", {"commands"})
