"""The dataset card and the Croissant description say what the audit found, and texts from the dataset stay text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from lightwell.models.audits.dataset.report.croissant import croissant_document
from lightwell.models.audits.dataset.report.dataset_card import dataset_card, size_category
from lightwell.models.audits.findings.finding import Effect, Finding, Null

HOSTILE = "<script>alert(1)</script>\n---\n# x: [y](z) | `a`"
FACTS: dict[str, Any] = {
    "num_images": 1200,
    "num_usable": 1199,
    "num_boxes": 0,
    "classes": {"cat": 700, HOSTILE: 499},
    "splits": {"train": 1000, "test": 199},
    "formats": {"jpeg": 1199},
}
SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "label": pa.int64(),
        "brightness": pa.float32(),
        "is_gray": pa.bool_(),
        "lbp": pa.list_(pa.float32(), 10),
        "phash": pa.binary(8),
    }
)


def finding(kind: Any, sentence: str, severity: Any = "high") -> Finding:
    return Finding(
        kind, kind, severity, None, -1, None, sentence, Effect(0.5, "share"), Null(None), 10, 5, ("a",)
    )


FOUND = (
    finding("leakage", "Leaked images."),
    finding("predictive_property", f"Quality {HOSTILE}"),
    finding("suspected_label", "Wrong labels.", "note"),
)


def test_the_card_has_metadata_that_the_hub_reads_and_the_problems_found() -> None:
    card = dataset_card("Cats & more", FACTS, FOUND)
    metadata, text = card.split("\n---\n", 1)
    found = yaml.safe_load(metadata.removeprefix("---\n"))
    assert found["size_categories"] == ["1K<n<10K"]
    assert found["task_categories"] == ["image-classification"]
    names = found["dataset_info"]["features"][1]["dtype"]["class_label"]["names"]
    assert sorted(names.values()) == sorted(["cat", HOSTILE])
    assert "- **high**: Leaked images." in text
    assert "Wrong labels" not in text


def test_texts_of_the_dataset_are_no_html_no_markdown_and_no_yaml_of_the_card() -> None:
    card = dataset_card(HOSTILE, FACTS, FOUND)
    text = card.split("\n---\n", 1)[1]
    assert "<script>" not in text
    assert "[y](z)" not in text
    assert "\n---\n" not in text
    assert yaml.safe_load(card.split("\n---\n", 1)[0].removeprefix("---\n"))["pretty_name"] == HOSTILE


@pytest.mark.parametrize(
    ("number", "name"), [(0, "n<1K"), (1000, "1K<n<10K"), (999_999, "100K<n<1M"), (2 * 10**9, "1B<n<10B")]
)
def test_sizes_have_the_names_of_the_hub(number: int, name: str) -> None:
    assert size_category(number) == name


def test_the_croissant_description_has_a_field_for_each_column_and_evidence_in_the_fields_of_responsible_ai() -> (
    None
):
    found = croissant_document("Cats", FACTS, FOUND, SCHEMA, "0" * 64)
    json.dumps(found)
    fields = found["recordSet"][0]["field"]
    assert [each["name"] for each in fields] == SCHEMA.names
    assert [each["dataType"] for each in fields] == [
        "sc:Text",
        "sc:Integer",
        "sc:Float",
        "sc:Boolean",
        "sc:Float",
        "sc:Text",
    ]
    assert found["rai:dataLimitations"] == ["Leaked images."]
    assert found["rai:dataAnnotationAnalysis"] == ["Wrong labels."]
    assert found["rai:dataBiases"] == [f"Quality {HOSTILE}"]
    assert "rai:dataBiases" not in croissant_document("Cats", FACTS, FOUND[:1], SCHEMA, "0" * 64)


@pytest.mark.filterwarnings("ignore:ConjunctiveGraph:DeprecationWarning")
def test_mlcroissant_accepts_the_description(tmp_path: Path) -> None:
    import mlcroissant

    path = tmp_path / "croissant.json"
    path.write_text(json.dumps(croissant_document("Cats", FACTS, FOUND, SCHEMA, "0" * 64)))
    dataset = mlcroissant.Dataset(path)
    assert not dataset.metadata.issues.errors
