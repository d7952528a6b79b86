"""The dataset audit as a job and as a command, on one small folder with planted defects and one without."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
import yaml
from commands import lightwell
from lightwell.models.audits.dataset.feature_plan import feature_plan
from lightwell.models.audits.dataset.job import DatasetAudit
from lightwell.models.audits.dataset.records import table_of
from lightwell.models.zoo.build import ModelSpec
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_batch_job
from PIL import Image


def textured(path: Path, seed: int, side: int = 64) -> None:
    """Write a sharp color picture."""
    pixels = np.random.default_rng(seed).integers(40, 216, (side // 5 + 1, side // 5 + 1, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.repeat(5, 0).repeat(5, 1)[:side, :side]).save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one defect of each kind, and its audit by the command."""
    root = tmp_path_factory.mktemp("inspect")
    for number in range(32):
        textured(root / "photos" / ("cat", "<b>дог")[number % 2] / f"{number:02}.png", number)
    cat = root / "photos" / "cat"
    shutil.copy(cat / "00.png", cat / "copy.png")
    (cat / "bad.jpg").write_bytes(b"no image")
    (cat / "cut.png").write_bytes((cat / "02.png").read_bytes()[:400])
    shutil.copy(cat / "04.png", cat / "=named.jpg")
    Image.new("RGB", (64, 64), (8, 8, 8)).save(cat / "dark.png")
    Image.new("RGB", (64, 64), (252, 252, 252)).save(cat / "light.png")
    Image.open(cat / "06.png").convert("L").save(cat / "gray.png")
    textured(cat / "wide.png", 77)
    Image.open(cat / "wide.png").resize((400, 40), 0).save(cat / "wide.png")
    done = lightwell("inspect", "photos", "--out", "out", cwd=root)
    assert done.returncode == 0, done.stderr
    return root


def findings_of(folder: Path) -> dict[str, set[str]]:
    """Return the keys of findings by kind."""
    found: dict[str, set[str]] = {}
    for each in json.loads((folder / "findings.json").read_text())["findings"]:
        found.setdefault(each["kind"], set()).update(each["keys"])
    return found


def test_thumbnails_have_the_shape_of_their_images_and_no_padding(root: Path) -> None:
    (folder,) = (root / "out" / "stages").glob("pictures-*")
    thumbnails = {row["key"]: row["jpeg"] for row in pq.read_table(folder).to_pylist()}
    with Image.open(io.BytesIO(thumbnails["cat/wide.png"])) as wide:
        assert wide.size == (160, 16)
        assert np.asarray(wide.convert("L")).min(axis=1).max() < 128
    with Image.open(io.BytesIO(thumbnails["cat/dark.png"])) as dark:
        assert dark.size == (160, 160)


def test_features_of_a_network_are_those_of_its_preprocessing_in_the_rows_of_their_images(
    root: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), weights)
    model = ModelSpec(name="timm:test_resnet", weights=str(weights))
    plan = Plan(index=root / "out.index.parquet", errors={"max_bad_share": None})  # type: ignore[arg-type]
    audit = DatasetAudit(plan=plan, model=model)
    run_batch_job(audit, LocalEngine(num_threads=1), tmp_path / "out")
    (folder,) = (tmp_path / "out" / "stages").glob("features-*")
    features = pq.read_table(folder)
    table = table_of(
        pq.read_table(tmp_path / "out" / "records.parquet"), plan.load_index().classes, 0, features
    )
    assert table.features is not None
    assert np.array_equal(np.isfinite(table.features).all(axis=1), table.is_readable)
    row = table.keys.tolist().index("cat/08.png")
    place = features["key"].to_pylist().index("cat/08.png")
    assert np.allclose(table.features[row], features["feature"][place].as_py())
    seen = feature_plan(plan, model)
    assert [next(iter(step.dump())) for step in (*seen.evaluate, *seen.preprocess)][-1] == "Normalize"


def test_planted_defects_are_found_each_by_its_check(root: Path) -> None:
    found = findings_of(root / "out")
    assert found["unreadable"] == {"cat/bad.jpg", "cat/cut.png"}
    assert found["odd_file"] == {"cat/=named.jpg"}
    assert {f"cat/{name}.png" for name in ("dark", "light", "gray", "wide")} <= found["quality"]
    assert {"cat/00.png", "cat/copy.png"} <= found["exact_duplicate"]


def test_the_records_have_a_row_for_every_file_and_no_measures_of_unreadable_ones(root: Path) -> None:
    rows = {row["key"]: row for row in pq.read_table(root / "out" / "records.parquet").to_pylist()}
    assert len(rows) == len([path for path in (root / "photos").rglob("*") if path.is_file()])
    assert rows["cat/bad.jpg"]["problem"]
    assert rows["cat/bad.jpg"]["brightness"] is None
    assert rows["cat/dark.png"]["brightness"] == pytest.approx(8, abs=1)


def test_names_in_the_report_stay_text(root: Path) -> None:
    page = (root / "out" / "report.html").read_text()
    assert "&lt;b&gt;дог" in page
    assert "<b>дог" not in page


def test_the_fix_list_makes_an_index_in_which_the_dropped_files_are_not_found_again(root: Path) -> None:
    command = ("index", "out.index.parquet", "--apply", "out/fixes.csv", "-o", "fixed.parquet", "--quiet")
    assert lightwell(*command, cwd=root).returncode == 0
    assert lightwell("inspect", "fixed.parquet", "--out", "again", "--quiet", cwd=root).returncode == 0
    assert not findings_of(root / "again").keys() & {"unreadable", "exact_duplicate"}


def test_report_writes_the_page_again_with_another_title(root: Path) -> None:
    shutil.copytree(root / "out", root / "other")
    (root / "other" / "report.html").unlink()
    assert lightwell("report", "other", "--title", "Second", "--quiet", cwd=root).returncode == 0
    assert "<h1>Second</h1>" in (root / "other" / "report.html").read_text()


def test_a_gate_exits_with_3_and_an_unknown_severity_with_2(root: Path) -> None:
    done = lightwell(
        "inspect", "out.index.parquet", "--out", "gate", "--fail-on", "high", "--quiet", cwd=root
    )
    assert done.returncode == 3
    assert done.stderr.startswith("--fail-on: high finding ")
    assert lightwell("inspect", "photos", "--out", "no", "--fail-on", "hgh", cwd=root).returncode == 2
    assert not (root / "no").exists()


def test_an_output_folder_among_the_images_is_refused(root: Path) -> None:
    done = lightwell("inspect", "photos", "--out", "photos/out", cwd=root)
    assert done.returncode == 2
    assert not (root / "photos" / "out").exists()


@pytest.mark.parametrize("number", [1, 6])
def test_one_image_and_one_class_without_labels_have_no_false_findings(tmp_path: Path, number: int) -> None:
    for seed in range(number):
        textured(tmp_path / "photos" / f"{seed}.png", seed)
    assert lightwell("inspect", "photos", "--out", "out", "--quiet", cwd=tmp_path).returncode == 0
    assert findings_of(tmp_path / "out") == {}


def test_a_file_that_changes_after_indexing_is_a_finding_and_no_error(tmp_path: Path) -> None:
    for seed in range(4):
        textured(tmp_path / "photos" / f"{seed}.png", seed)
    build_index(tmp_path / "photos", fractions={"train": 1.0}).save(tmp_path / "index.parquet")
    (tmp_path / "photos" / "2.png").unlink()
    assert lightwell("inspect", "index.parquet", "--out", "out", "--quiet", cwd=tmp_path).returncode == 0
    assert findings_of(tmp_path / "out") == {"unreadable": {"2.png"}}


def test_a_run_with_one_thread_has_the_same_bytes_and_a_split_has_its_images_only(root: Path) -> None:
    plan = Plan(index=root / "out.index.parquet", errors={"max_bad_share": None})  # type: ignore[arg-type]
    run_batch_job(DatasetAudit(plan=plan), LocalEngine(num_threads=1), root / "single")
    for name in ("findings.json", "fixes.csv", "records.parquet", "report.html"):
        assert (root / "single" / name).read_bytes() == (root / "out" / name).read_bytes(), name
    (root / "train.yaml").write_text(
        yaml.safe_dump({"plan": {"index": "out.index.parquet"}, "split": "train", "title": "Train"})
    )
    assert lightwell("inspect", "train.yaml", "--out", "train", "--quiet", cwd=root).returncode == 0
    splits = pq.read_table(root / "train" / "records.parquet")["split"].to_pylist()
    assert set(splits) == {"train"}


def test_images_with_several_labels_count_for_each_class_and_the_page_says_what_is_not_checked(
    tmp_path: Path,
) -> None:
    for seed in range(6):
        textured(tmp_path / f"{seed}.png", seed)
    (tmp_path / "table.csv").write_text(
        "path,label\n" + "".join(f"{seed}.png,{'a|b' if seed % 2 else 'b'}\n" for seed in range(6))
    )
    build_index(tmp_path / "table.csv").save(tmp_path / "index.parquet")
    plan = Plan.model_validate({"index": tmp_path / "index.parquet"})
    found = run_batch_job(DatasetAudit(plan=plan), LocalEngine(num_threads=1), tmp_path / "out")
    assert found["classes"] == {"b": 6, "a": 3}
    assert found["skipped_checks"]["class balance"] == "images have several labels each"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "class balance: images have several labels each" in page
    assert "sequence:" in (tmp_path / "out" / "README.md").read_text()


def test_files_that_go_are_cut_or_replaced_between_two_stages_cost_themselves_only(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for seed in range(6):
        textured(photos / f"{seed}.png", seed)
    build_index(photos).save(tmp_path / "index.parquet")

    class Changing(SilentConsole):
        def track(self, batches: Any, label: str) -> Iterator[Any]:
            if label.endswith("images"):
                (photos / "0.png").unlink()
                (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:200])
                textured(photos / "2.png", 9, side=96)
                textured(photos / "new.png", 8)
            return iter(batches)

    plan = Plan.model_validate({"index": tmp_path / "index.parquet", "errors": {"max_bad_share": None}})
    run_batch_job(DatasetAudit(plan=plan), LocalEngine(num_threads=1), tmp_path / "out", Changing())
    assert findings_of(tmp_path / "out") == {"unreadable": {"0.png", "1.png", "2.png"}}
    rows = pq.read_table(tmp_path / "out" / "records.parquet")
    assert rows["key"].to_pylist() == [f"{seed}.png" for seed in range(6)]
    assert rows["problem"].null_count == 3
