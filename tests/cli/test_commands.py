"""The command line: help at once, clear errors in one line, the right exit codes, nothing lost."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import lightwell as lightwell_package
import pytest
import typer
import warm
from clusters import wait_until
from commands import lightwell
from lightwell.cli.app import app
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.machine import num_cpus
from patience import HANG_S
from pictures import make_folder

COMMANDS = tuple(typer.main.get_command(app).list_commands(typer.Context(typer.main.get_command(app))))
"""All commands and groups of the command line."""


def failed(run: subprocess.CompletedProcess[str], code: int) -> str:
    assert run.returncode == code, run.stderr
    assert "Traceback" not in run.stderr
    return run.stderr


def test_help_imports_nothing_heavy_and_takes_under_a_second_of_cpu_time() -> None:
    def cpu_s() -> float:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        return spent.ru_utime + spent.ru_stime

    before = cpu_s()
    command = [sys.executable, "-X", "importtime", "-m", "lightwell.cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "audit" in done.stdout
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "typer" in imported
    assert not imported & {"albumentations", "cv2", "nvidia", "pyarrow", "ray", "torch"}
    assert cpu_s() - before < 1.0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_in_its_help(command: str) -> None:
    assert f"Example: lightwell {command}" in lightwell(command, "--help").stdout


def test_the_version_is_that_of_the_package() -> None:
    assert lightwell_package.__version__ == version("lightwell")
    assert lightwell("--version").stdout == f"lightwell {version('lightwell')}\n"


def test_index_and_explain_print_json(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    counted = lightwell("index", tmp_path / "photos", "-o", tmp_path / "index.parquet", "--json")
    assert counted.returncode == 0, counted.stderr
    assert json.loads(counted.stdout)
    (tmp_path / "plan.yaml").write_text(
        "index: index.parquet\npreprocess: [{Resize: {height: 8, width: 8}}]\n"
    )
    steps = json.loads(lightwell("explain", tmp_path / "plan.yaml", "--json").stdout)
    assert [step["name"] for step in steps] == ["Read", "Draw", "Decode", "Resize", "Batch"]
    assert "Resize" in lightwell("explain", tmp_path / "plan.yaml").stdout


def test_explain_lists_what_a_training_job_learns(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    lightwell("index", tmp_path / "photos", "-o", tmp_path / "index.parquet")
    (tmp_path / "plan.yaml").write_text(
        "index: index.parquet\npreprocess: [{Resize: {height: 32, width: 32}}]\n"
    )
    stages = "unfreeze: [{epoch: 0, from: head}, {epoch: 2, from: layer4}]"
    (tmp_path / "train.yaml").write_text(
        f"plan: plan.yaml\nmodel: {{name: resnet18, weights: none}}\n{stages}\n"
    )
    done = lightwell("explain", tmp_path / "train.yaml")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("0 ", "2 "))]
    assert ["0", "layer4", "8,393,728", "0", "frozen"] in rows
    assert ["2", "layer4", "8,393,728", "8,393,728", "0.0002", "0.0001"] in rows
    found = json.loads(lightwell("explain", tmp_path / "train.yaml", "--json").stdout)
    assert sum(row["num_learning"] for row in found["learning"] if row["from_epoch"] == 0) == 512 * 2 + 2


def test_preview_writes_a_page_of_what_a_job_or_a_plan_shows(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", num_images=6)
    lightwell("index", tmp_path / "photos", "-o", tmp_path / "index.parquet")
    (tmp_path / "plan.yaml").write_text("index: index.parquet\naugment: [HorizontalFlip]\n")
    (tmp_path / "train.yaml").write_text("plan: plan.yaml\nmodel: {name: resnet18, weights: none}\n")
    out = tmp_path / "preview.html"
    done = lightwell("preview", tmp_path / "train.yaml", "--out", out, "--samples", 2, "--versions", 3)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"wrote {out}: 2 samples, ")
    assert out.read_text().count("<b>Epoch 2</b>") == 2
    done = lightwell("preview", tmp_path / "plan.yaml", "--out", out, "--key", "dog/001.jpg", "--quiet")
    assert (done.returncode, done.stdout) == (0, "")
    assert "<h2>dog/001.jpg</h2>" in out.read_text()
    assert "'nobody'" in failed(
        lightwell("preview", tmp_path / "plan.yaml", "--out", out, "--key", "nobody"), 2
    )
    assert "--out" in failed(lightwell("preview", tmp_path / "plan.yaml", "--out", tmp_path / "plan.yaml"), 2)


def test_a_missing_folder_is_an_invalid_request(tmp_path: Path) -> None:
    assert "nowhere" in failed(lightwell("index", tmp_path / "nowhere", "-o", tmp_path / "i.parquet"), 2)


def test_an_empty_folder_is_an_invalid_request(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in failed(lightwell("index", tmp_path / "empty", "-o", tmp_path / "i.parquet"), 2)


def test_an_unwritable_output_fails_with_its_name(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", num_images=2)
    (tmp_path / "file").write_text("")
    message = failed(lightwell("index", tmp_path / "photos", "-o", tmp_path / "file" / "i.parquet"), 1)
    assert "file" in message


def test_a_missing_plan_is_an_invalid_request(tmp_path: Path) -> None:
    assert "no such file" in failed(lightwell("explain", tmp_path / "plan.yaml"), 2)


def test_a_misspelt_transform_is_an_invalid_request(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("index: i\naugment: [HorizontalFlipp]\n")
    assert "did you mean 'HorizontalFlip'" in failed(lightwell("explain", tmp_path / "plan.yaml"), 2)


def test_an_unknown_job_lists_the_known_jobs(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("job: gradcamm\nplan: plan.yaml\n")
    assert "did you mean 'gradcam'" in failed(
        lightwell("audit", tmp_path / "job.yaml", "--out", tmp_path / "out"), 2
    )


def test_doctor_reports_that_decoders_agree() -> None:
    found = json.loads(lightwell("doctor", "--json").stdout)
    assert found["decoders"]["dali cpu"] == "ok, differs by at most 0 of 255"
    assert found["cores"] == num_cpus()


def test_an_interrupted_training_exits_with_a_message_and_resumes(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", num_images=30)
    assert lightwell("index", tmp_path / "photos", "-o", tmp_path / "index.parquet").returncode == 0
    job = tmp_path / "train.yaml"

    def write_job(epochs: int) -> None:
        job.write_text(
            "plan: {index: index.parquet, preprocess: [{Resize: {height: 64, width: 64}}], batch: {size: 8}}\n"
            f"model: {{name: squeezenet1_1, weights: none}}\nschedule: constant\nepochs: {epochs}\n"
        )

    write_job(100_000)
    with warm.running(warm.COMMAND, "train", job, "--out", tmp_path / "run") as training:
        wait_until(lambda: "epoch 2/" in training.err.read_text(), HANG_S, "a second epoch")
        os.kill(training.process.pid, signal.SIGINT)
        done = training.end()
    assert done.returncode == 1
    message = done.stderr
    assert (
        message.splitlines()[-1] == "interrupted; finished work is kept: run the same command again to resume"
    )
    assert "Traceback" not in message
    num_done = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["epoch"] + 1
    write_job(num_done + 2)
    again = lightwell("train", job, "--out", tmp_path / "run")
    assert again.returncode == 0, again.stderr
    epochs = [
        json.loads(line)["epoch"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert epochs == [epoch for epoch in range(num_done + 2) for _ in range(2)]
    assert f"epoch 1/{num_done + 2}" not in again.stderr


LET_GO = """
import time
from lightwell.cli.app import redeliver_interrupts

def feed():
    try:
        yield 1
    finally:
        print("letting go", flush=True)
        time.sleep(600)

redeliver_interrupts()
one = feed()
next(one)
del one
print("swallowed", flush=True)
time.sleep(600)
"""


def test_an_interrupt_in_a_destructor_is_redelivered() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LET_GO], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "letting go\n"
        running.send_signal(signal.SIGINT)
        _, message = running.communicate(timeout=HANG_S)
    assert running.returncode == -signal.SIGINT
    assert message.splitlines()[-1] == "KeyboardInterrupt"


def test_materialized_shards_are_read_back(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", num_images=6)
    lightwell("index", tmp_path / "photos", "-o", tmp_path / "index.parquet")
    plan = tmp_path / "plan.yaml"
    plan.write_text("index: index.parquet\npreprocess: [{Resize: {height: 8, width: 8}}]\n")
    out = tmp_path / "out"
    done = lightwell("materialize", plan, "--out", out, "--json", "--memory", "300M")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["written"] == 6
    assert list(out.glob("train-*.tar"))
    (tmp_path / "again.yaml").write_text("index: out/index.parquet\n")
    again = lightwell("materialize", tmp_path / "again.yaml", "--out", tmp_path / "second")
    assert "wrote 6 images into " in again.stdout, again.stderr
    assert "bottleneck: " in again.stderr


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--encoding", "webp"], "encoding: expected 'png', 'jpeg' or 'npy', got 'webp'"),
        (["--epochs", "2"], "expected 1 for a view that does not augment"),
        (["--memory", "lots"], "--memory: expected a size such as 2G or 512MiB, got 'lots'"),
        (["--memory", "100"], "memory: expected at least"),
    ],
)
def test_an_invalid_request_to_materialize_is_an_error(tmp_path: Path, argv: list[str], message: str) -> None:
    make_folder(tmp_path / "photos", num_images=2)
    lightwell("index", tmp_path / "photos", "-o", tmp_path / "index.parquet")
    plan = tmp_path / "plan.yaml"
    plan.write_text("index: index.parquet\npreprocess: [{Resize: {height: 8, width: 8}}]\n")
    assert message in failed(lightwell("materialize", plan, "--out", tmp_path / "out", *argv), 2)


@pytest.mark.parametrize("command", ["train", "audit", "demo"])
def test_an_output_that_cannot_be_written_fails_before_any_work(command: str, tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", num_images=30)
    assert lightwell("index", tmp_path / "photos", "-o", tmp_path / "index.parquet").returncode == 0
    (tmp_path / "job.yaml").write_text(
        "plan: {index: index.parquet, preprocess: [{Resize: {height: 64, width: 64}}]}\n"
        "model: {name: squeezenet1_1, weights: none}\n"
    )
    (tmp_path / "file").write_text("")
    job = [] if command == "demo" else [tmp_path / "job.yaml"]
    message = failed(lightwell(command, *job, "--out", tmp_path / "file" / "out"), 1)
    assert "--out: expected a folder that can be written" in message
    assert "choose another" in message
    assert message.count("\n") == 1


def test_shards_are_indexed_by_a_brace_list_and_hashed(tmp_path: Path) -> None:
    photos = make_folder(tmp_path / "photos", num_images=4)
    for number in range(2):
        with tarfile.open(tmp_path / f"part-{number}.tar", "w") as tar:
            for path in sorted(photos.rglob("*.jpg"))[number::2]:
                tar.add(path, f"{path.stem}.jpg")
    done = lightwell(
        "index", f"{tmp_path}/part-{{0..1}}.tar", "-o", tmp_path / "i.parquet", "--hash", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 4
    assert Index.load(tmp_path / "i.parquet").table["hash"].null_count == 0


def test_names_that_are_not_utf8_are_printed_escaped(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", num_images=4)
    output = os.fsencode(tmp_path) + b"/index-\xff.parquet"
    done = warm.run(warm.COMMAND, "index", tmp_path / "photos", "-o", os.fsdecode(output))
    assert done.returncode == 0, done.stderr
    assert r"\udcff" in done.stdout
    assert Path(os.fsdecode(output)).is_file()
