"""Two audits compared: accuracy on the same images, classes by name, findings by id or place; and ``lightwell diff``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import open_page
from lightwell.cli.app import app
from lightwell.models.audits.comparison.audit_result import AuditResult
from lightwell.models.audits.comparison.compare import compare, match_findings
from lightwell.models.audits.comparison.paired import mcnemar, paired_difference, unpaired_difference
from lightwell.models.audits.findings.finding import Effect, Finding, Null, Region, Severity, finding_id
from lightwell.models.audits.gradcam.findings import FINDINGS_VERSION
from lightwell.pipeline.errors import RequestError
from scipy.stats import binomtest
from typer.testing import CliRunner

CLASSES = ("cat", "dog")


def region(*inside: int) -> Region:
    cells = np.zeros(9, np.float32)
    cells[list(inside)] = 1
    return Region.from_weights("corner", cells.reshape(3, 3))


def finding(
    place: Region | None, severity: Severity = "high", value: float = 0.3, name: str = "cat"
) -> Finding:
    return Finding(
        id=finding_id("region", name, place),
        kind="region",
        severity=severity,
        class_name=name,
        class_number=CLASSES.index(name),
        group=None,
        sentence=f"Evidence of {name} in a corner <b>.",
        effect=Effect(value, "share of images", value - 0.05, value + 0.05),
        null=Null(0.01),
        num_images=10,
        num_concerned=3,
        keys=("a",),
        region=place,
    )


def audit(
    labels: Sequence[int],
    predictions: Sequence[int],
    keys: Sequence[str] | None = None,
    classes: Sequence[str] = CLASSES,
    findings: Sequence[Finding] = (),
) -> tuple[dict[str, object], pa.Table]:
    """Return findings.json and records.parquet of an audit."""
    right = [label == guess for label, guess in zip(labels, predictions, strict=True)]
    facts: dict[str, object] = {
        "findings_version": FINDINGS_VERSION,
        "title": "Audit <1>",
        "model": {"name": "resnet18"},
        "weights_report": {"source": "best.safetensors"},
        "split": "test",
        "index": {"name": "index.parquet", "fingerprint": "f"},
        "plan_fingerprint": "p",
        "versions": {"lightwell": "0"},
        "classes": list(classes),
        "accuracy": sum(right) / len(right),
        "per_class": [{"class": name, "border_mass": 0.1} for name in classes],
        "findings": [each.to_dict() for each in findings],
    }
    table = pa.table(
        {
            "key": list(keys) if keys else [f"{n:03}.jpg" for n in range(len(labels))],
            "label": labels,
            "known": [label >= 0 for label in labels],
            "prediction": predictions,
        }
    )
    return facts, table


def save(folder: Path, facts: dict[str, object], records: pa.Table) -> Path:
    folder.mkdir()
    (folder / "findings.json").write_text(json.dumps(facts))
    pq.write_table(records, folder / "records.parquet")
    return folder


def load(folder: Path, *what: object, **changes: object) -> AuditResult:
    return AuditResult.load(save(folder, *audit(*what, **changes)))  # type: ignore[arg-type]


def test_the_paired_interval_is_that_of_resampled_images() -> None:
    first = np.random.default_rng(0).random(300) < 0.8
    second = first ^ (np.random.default_rng(1).random(300) < 0.1)
    found = paired_difference(first, second, np.random.default_rng(2))
    assert found is not None
    resampled = np.random.default_rng(3).integers(0, 300, (4000, 300))
    means = (second.astype(float) - first)[resampled].mean(axis=1)
    assert (found.low, found.high) == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.006)
    assert found.value == pytest.approx(second.mean() - first.mean())
    alone = unpaired_difference(first, second, np.random.default_rng(2))
    assert alone is not None
    assert alone.high - alone.low > 1.3 * (found.high - found.low), "pairs say more"


def test_mcnemar_counts_only_images_that_one_has_right() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(2, 9) == pytest.approx(binomtest(2, 11).pvalue)
    assert mcnemar(9, 2) == mcnemar(2, 9)


def test_images_are_matched_by_key_and_classes_by_name(tmp_path: Path) -> None:
    first = load(tmp_path / "a", [0, 0, 1, 1], [0, 1, 1, 1])
    keys = ["003.jpg", "002.jpg", "001.jpg", "new.jpg"]
    second = load(tmp_path / "b", [0, 0, 1, 0], [0, 1, 1, 0], keys, classes=("dog", "cat"))
    found = compare(first, second)
    assert (found.num_shared, found.num_relabelled) == (3, 0)
    assert found.paired is not None
    assert (found.paired.num_images, found.paired.first, found.paired.second) == (3, 2 / 3, 2 / 3)
    assert found.unpaired is not None
    changes = {change.name: change.recall.value for change in found.classes}
    assert changes == {"cat": 1.0, "dog": -0.5}


def test_an_image_with_another_label_counts_in_no_difference(tmp_path: Path) -> None:
    first = load(tmp_path / "a", [0, 0, 1, -1], [0, 0, 1, 1])
    second = load(tmp_path / "b", [0, 1, 1, 1], [0, 0, 1, 1])
    found = compare(first, second)
    assert found.num_relabelled == 1
    assert found.paired is not None
    assert found.paired.num_images == 2


def test_audits_without_labels_or_shared_images_have_no_difference(tmp_path: Path) -> None:
    first = load(tmp_path / "a", [-1, -1], [0, 1])
    second = load(tmp_path / "b", [0, 1], [0, 1], ["x", "y"])
    found = compare(first, second)
    assert found.paired is found.unpaired is None
    assert found.classes == ()


def test_findings_are_matched_by_id_and_then_by_place() -> None:
    same, moved, other = finding(region(0, 1, 2, 3)), finding(region(4, 5, 7, 8)), finding(region(6))
    nearly = finding(region(4, 5, 7))
    stayed, appeared, gone = match_findings((same, moved, other), (nearly, finding(region(2)), same))
    assert [(pair.first, pair.second) for pair in stayed] == [(same, same), (moved, nearly)]
    assert appeared == (finding(region(2)),)
    assert gone == (other,)
    assert match_findings((moved,), (finding(region(4, 5, 7), name="dog"),))[0] == ()


def test_an_effect_has_changed_where_the_intervals_do_not_overlap() -> None:
    first = finding(region(0), value=0.3)
    for value, is_changed in ((0.35, False), (0.45, True), (0.1, True)):
        (pair,), _, _ = match_findings((first,), (replace(first, effect=finding(None, value=value).effect),))
        assert pair.is_changed is is_changed


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("diff")
    labels = [0, 1] * 20
    old, new = finding(region(0), "low"), finding(region(8), "medium")
    first = save(root / "a", *audit(labels, labels, findings=[old]))
    second = save(root / "b", *audit(labels, [0] * 40, findings=[replace(old, severity="high"), new]))
    return str(first), str(second)


def diff(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["diff", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_diff_prints_accuracy_findings_and_classes(folders: tuple[str, str]) -> None:
    code, said, _ = diff(*folders)
    assert code == 0
    assert "The same images: 40 images have the same key in both audits." in said
    assert re.search(
        r"accuracy, 40 shared images +100.0 % +50.0 % +-50.0 points \(-65.0 to -3\d.\d\), McNemar", said
    )
    assert re.search(r"appeared +medium +Evidence of cat", said)
    assert re.search(r"stayed +low to high", said)
    assert re.search(r"dog +100.0 % +0.0 % +-100.0 points \(-100.0 to -100.0\) +< 0.001", said)


@pytest.mark.parametrize(("severity", "code"), [("high", 3), ("medium", 3)])
def test_a_finding_that_appeared_or_rose_exits_with_3(
    severity: str, code: int, folders: tuple[str, str]
) -> None:
    found, _, said = diff(*folders, "--quiet", "--fail-on", severity)
    assert found == code
    assert len(said.splitlines()) == (1 if severity == "high" else 2)


def test_findings_that_went_do_not_fail(folders: tuple[str, str]) -> None:
    assert diff(*reversed(folders), "--quiet", "--fail-on", "low") == (0, "", "")


def test_diff_writes_a_page_with_escaped_names_and_the_same_bytes_each_time(
    folders: tuple[str, str], tmp_path: Path
) -> None:
    for name in ("x", "y"):
        assert diff(*folders, "--quiet", "--out", str(tmp_path / name))[0] == 0
    for name in ("diff.html", "diff.json"):
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()
    page = (tmp_path / "x" / "diff.html").read_text()
    assert "Audit &lt;1&gt;" in page
    assert "<b>." not in page
    assert "<script" not in page
    found = json.loads((tmp_path / "x" / "diff.json").read_text())
    assert found["paired"]["value"] == -0.5
    assert [pair["is_worse"] for pair in found["stayed"]] == [True]


def dataset(folder: Path, classes: Sequence[str | None], *findings: Finding) -> Path:
    """Write the results of a dataset's audit of which a comparison reads."""
    facts: dict[str, object] = {
        "findings_version": 1,
        "title": "Cells <1>",
        "num_usable": len(classes),
        "classes": {name: classes.count(name) for name in set(classes) - {None}},
        "index_fingerprint": "f",
        "split": None,
        "findings": [each.to_dict() for each in findings],
    }
    keys = [f"{number:03}.jpg" for number in range(len(classes))]
    return save(folder, facts, pa.table({"key": keys, "class": pa.array(classes, pa.string())}))


def test_two_audits_of_datasets_are_compared_by_findings_and_labels(tmp_path: Path) -> None:
    old, stays, new = (replace(finding(None), id=name, kind="quality") for name in ("old", "stays", "new"))
    fewer = replace(stays, effect=finding(None, value=0.1).effect, severity="low")
    first = dataset(tmp_path / "a", ["cat", "dog", None, "cat"], old, stays)
    second = dataset(tmp_path / "b", ["cat", "ant", "cat"], fewer, new)
    found = compare(AuditResult.load(first), AuditResult.load(second))
    assert (found.appeared, found.gone) == ((new,), (old,))
    assert [(pair.first.id, pair.is_changed, pair.is_worse) for pair in found.stayed] == [
        ("stays", True, False)
    ]
    assert (found.num_shared, found.num_relabelled, found.classes) == (3, 1, ())
    assert (found.classes_gone, found.classes_new) == (("dog",), ("ant",))
    code, said, _ = diff(str(first), str(second), "--out", str(tmp_path / "out"), "--fail-on", "high")
    assert code == 3
    assert re.search(r"stayed, effect changed +high to low .*30.0 % \(25.0 to 35.0 %\) to 10.0 %", said)
    assert "1 shared images have another label." in said
    assert "accuracy" not in said
    page = (tmp_path / "out" / "diff.html").read_text()
    assert "Cells &lt;1&gt;" in page
    assert "McNemar" not in page


def test_a_narrow_page_cuts_no_table(tmp_path: Path, chromium: str) -> None:
    long = replace(finding(None), sentence="Evidence of a cat lies in the corner. " * 9)
    first, second = (dataset(tmp_path / name, ["cat"], long) for name in "ab")
    diff(str(first), str(second), "--out", str(tmp_path / "out"))
    probe = """<iframe src="out/diff.html" width="360" height="900"></iframe><pre id="found"></pre><script>
      addEventListener("load", () => {
        const tables = [...document.querySelector("iframe").contentDocument.querySelectorAll(".scroll")];
        document.getElementById("found").textContent = tables.map((one) => one.scrollWidth - one.clientWidth).join(" ");
      });</script>"""
    (tmp_path / "probe.html").write_text(probe)
    done = open_page(chromium, tmp_path / "probe.html", tmp_path)
    assert re.findall(r'<pre id="found">(.*?)</pre>', done.stdout) == ["0 0 0"]


def test_audits_of_a_model_and_of_a_dataset_are_not_compared(tmp_path: Path) -> None:
    model = load(tmp_path / "a", [0], [0])
    with pytest.raises(
        RequestError, match="expected two audits of models or two of datasets, got one of each; name"
    ):
        compare(model, AuditResult.load(dataset(tmp_path / "b", ["cat"])))


def test_a_folder_without_an_audit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError, match=r"expected the folder of a finished audit, got .*; name the --out"
    ):
        AuditResult.load(tmp_path)
    facts, records = audit([0], [0])
    with pytest.raises(RequestError, match=r"expected findings of version .*, got 1; run the audit again"):
        AuditResult.load(save(tmp_path / "old", {**facts, "findings_version": 1}, records))


@pytest.mark.parametrize(
    "damage",
    [
        {"findings": [{}]},
        {"findings": [3]},
        {"findings": None},
        {"index": {}},
        {"model": None},
        {"per_class": [{}]},
    ],
    ids=json.dumps,
)
def test_a_damaged_findings_json_is_refused(tmp_path: Path, damage: dict[str, object]) -> None:
    facts, records = audit([0], [0])
    with pytest.raises(RequestError, match="expected the folder of a finished audit"):
        AuditResult.load(save(tmp_path / "audit", {**facts, **damage}, records))
