"""``lightwell audit``: gates and the explained class, with the exit codes that scripts rely on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from commands import lightwell
from lightwell.models.training.checkpoint import CheckpointMetadata, save_checkpoint
from lightwell.models.zoo.build import ModelSpec, build_model
from lightwell.pipeline.index.build import build_index
from pictures import make_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures, a checkpoint that calls all of them dogs, and an audit of it that was run once."""
    root = tmp_path_factory.mktemp("audit")
    build_index(make_folder(root / "photos", num_images=6), fractions={"test": 1.0}).save(
        root / "index.parquet"
    )
    spec = ModelSpec(name="squeezenet1_1", weights="none", num_classes=2)
    model = build_model(spec)
    with torch.no_grad():
        model.get_parameter("classifier.1.bias").copy_(torch.tensor([0.0, 50.0]))
    save_checkpoint(
        root / "best.safetensors", model, CheckpointMetadata(spec, ("cat", "dog"), "0", {}, ({"loss": 0.5},))
    )
    plan = {"index": "index.parquet", "preprocess": [{"Resize": {"height": 64, "width": 64}}]}
    job = {"job": "gradcam", "plan": plan, "checkpoint": "best.safetensors", "gallery": 2}
    (root / "audit.yaml").write_text(yaml.safe_dump(job))
    assert audit(root).returncode == 0
    return root


def audit(
    root: Path, *options: object, job: str = "audit.yaml", out: str = "out"
) -> subprocess.CompletedProcess[str]:
    return lightwell("audit", job, "--out", out, *options, cwd=root)


def test_a_failed_gate_exits_with_3_and_its_name_after_all_files_are_written(folder: Path) -> None:
    before = pq.read_table(folder / "out" / "records.parquet")
    (folder / "out" / "report.html").unlink()
    gates = ("--fail-on", "accuracy<0.8", "--fail-on", "num_images<3", "--fail-on", "blank_maps.predicted>-1")
    done = audit(folder, *gates, "--json")
    assert done.returncode == 3
    findings = json.loads(done.stdout)
    assert findings["accuracy"] == 0.5
    message = [line for line in done.stderr.splitlines() if line.startswith("--fail-on: ")]
    assert message[0] == "--fail-on: accuracy is 0.5: accuracy < 0.8"
    assert [line.split()[1] for line in message] == ["accuracy", "blank_maps.predicted"]
    assert (folder / "out" / "report.html").is_file()
    assert pq.read_table(folder / "out" / "records.parquet").equals(before)


def test_a_passed_gate_exits_with_0(folder: Path) -> None:
    done = audit(folder, "--fail-on", "accuracy<0.5", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_invalid_gate_exits_with_2_before_the_audit_runs(folder: Path) -> None:
    done = audit(folder, "--fail-on", "acuracy<0.5", out="never")
    assert done.returncode == 2
    assert "did you mean 'accuracy'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "never").exists()


def test_a_gate_on_a_missing_metric_exits_with_2_and_hides_no_failed_gate(folder: Path) -> None:
    done = audit(folder, "--fail-on", "pointing_game.hit_rate<0.5", "--fail-on", "accuracy<0.8", "--quiet")
    assert done.returncode == 2
    crossed, error = done.stderr.splitlines()
    assert crossed == "--fail-on: accuracy is 0.5: accuracy < 0.8"
    assert error.startswith("error: --fail-on: expected a measured pointing_game.hit_rate, got none")


def test_explain_with_a_class_name_overrides_the_job_file(folder: Path) -> None:
    done = audit(folder, "--explain", "cat", "--quiet", out="cat")
    assert done.returncode == 0, done.stderr
    records = pq.read_table(folder / "cat" / "records.parquet")
    assert set(records["explained"].to_pylist()) == {0}
    assert set(records["prediction"].to_pylist()) == {1}
    assert json.loads((folder / "cat" / "findings.json").read_text())["explain"] == "cat"


def test_an_unknown_class_exits_with_2_and_a_suggestion(folder: Path) -> None:
    done = audit(folder, "--explain", "dgo", out="unknown")
    assert done.returncode == 2
    assert (
        "explain: expected predicted, label, second, all or a class of the model, got 'dgo'; did you mean 'dog'"
        in done.stderr
    )


def test_explain_with_another_kind_of_job_exits_with_2(folder: Path) -> None:
    (folder / "shards.yaml").write_text("job: materialize\nplan: {index: index.parquet}\n")
    done = audit(folder, "--explain", "dog", job="shards.yaml", out="shards")
    assert done.returncode == 2
    assert "--explain: expected a gradcam job, got Materialize; leave the option out" in done.stderr
    assert not (folder / "shards").exists()


def test_an_audit_that_fails_on_its_model_exits_with_its_code_and_one_line(folder: Path) -> None:
    (folder / "best.pth").write_bytes(b"no weights")
    job = yaml.safe_load((folder / "audit.yaml").read_text())
    del job["checkpoint"]
    (folder / "bad.yaml").write_text(
        yaml.safe_dump({**job, "model": {"name": "squeezenet1_1", "weights": "best.pth"}})
    )
    done = audit(folder, "--fail-on", "accuracy<0.8", job="bad.yaml", out="bad")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
