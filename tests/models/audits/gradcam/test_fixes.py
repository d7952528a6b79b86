"""The fix list of an audit names all images of its findings, suggests classes, and changes nothing until somebody decides."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from image_tables import image_table, plant
from lightwell import build_index
from lightwell.models.audits.dataset.checks.fixes import FixRow
from lightwell.models.audits.dataset.fix_list import apply_fixes, read_fixes, write_fixes
from lightwell.models.audits.findings.finding import Finding
from lightwell.models.audits.gradcam.fixes import SUSPECT_SCHEMA, collect_fixes, suspect_fixes
from lightwell.models.audits.gradcam.suspects.image_table import ImageTable
from lightwell.models.audits.gradcam.suspects.search import search_all
from pictures import make_folder


def fixes_of(table: ImageTable, known: list[str]) -> tuple[list[Finding], list[FixRow]]:
    """Return the findings of a table, and the fix list if all of them stand."""
    found = search_all(table)
    rows = [
        each.to_dict() | {"fixes": [asdict(fix) for fix in suspect_fixes(table, each, known)]}
        for each in found
    ]
    return found, collect_fixes(pa.Table.from_pylist(rows, schema=SUSPECT_SCHEMA), found)


def test_suspected_labels_come_with_a_class_of_the_index_and_marked_images_without_one() -> None:
    table = image_table(seed=1)
    plant(table, np.arange(30))
    wrong = np.array([60, 110, 160, 190])
    table.labels[wrong] = (table.labels[wrong] + 1) % 4
    found, fixes = fixes_of(table, list(table.names)[:3])
    by_key = {fix.key: fix for fix in fixes}
    assert len(by_key) == len(fixes)
    assert {fix.action for fix in fixes} == {"review"}
    marked = [by_key[key] for key in table.keys[:30] if key in by_key]
    assert len(marked) > 24, "all images, not only those listed with the finding"
    assert {fix.value for fix in marked} == {""}
    assert by_key["1/0060.jpg"].value == "class1"
    assert by_key["3/0190.jpg"].value == "", "class3 is not in the index"
    assert {fix.finding_id for fix in fixes} <= {each.id for each in found}


def test_a_region_that_is_only_a_note_and_groups_of_images_add_nothing() -> None:
    table = image_table(seed=1)
    plant(table, np.arange(30))
    (region,) = [each for each in search_all(table) if each.kind == "region"]
    rows = [region.to_dict() | {"fixes": [asdict(fix) for fix in suspect_fixes(table, region, ())]}]
    records = pa.Table.from_pylist(rows, schema=SUSPECT_SCHEMA)
    assert collect_fixes(records, [replace(region, severity="note")]) == []
    assert len(collect_fixes(records, [region])) == region.num_concerned
    assert suspect_fixes(table, replace(region, kind="profile", region=None), ()) == []


def test_the_list_is_applied_to_the_index_once_review_became_drop_or_relabel(tmp_path: Path) -> None:
    index = build_index(make_folder(tmp_path / "photos", num_images=4))
    first, second, *_ = index.table["key"].to_pylist()
    other = next(
        name for name in index.classes if index.table["label"][1].as_py() != index.classes.index(name)
    )
    path = tmp_path / "fixes.csv"
    write_fixes(
        [FixRow(first, "review", "", "a mark", "region-1"), FixRow(second, "review", other, "", "")], path
    )
    assert apply_fixes(index, read_fixes(path)).table.equals(index.table)
    lines = path.read_text().replace("review,,", "drop,,").replace("review", "relabel")
    path.write_text(lines)
    fixed = apply_fixes(index, read_fixes(path))
    assert fixed.table["key"].to_pylist() == index.table["key"].to_pylist()[1:]
    assert fixed.table["label"][0].as_py() == index.classes.index(other)
