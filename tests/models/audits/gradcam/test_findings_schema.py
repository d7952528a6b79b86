"""findings.json has the keys, types and ranges that findings.schema.json describes, and no others."""

from __future__ import annotations

import json
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from lightwell.models.audits.findings.finding import (
    MAX_KEYS,
    MODEL_KINDS,
    SEVERITIES,
    Advice,
    Confirmation,
    Effect,
    Finding,
    Null,
    Region,
)
from lightwell.models.audits.gradcam.findings import FINDINGS_VERSION


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found = json.loads(files("lightwell.models.audits.gradcam").joinpath("findings.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(found)
    return dict(found)


@pytest.fixture(scope="module")
def closed(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    """The schema, refusing keys that it does not describe."""

    def close(part: Any) -> Any:
        if isinstance(part, list):
            return [close(each) for each in part]
        if not isinstance(part, dict):
            return part
        inside = {key: close(value) for key, value in part.items()}
        is_object = "object" in str(part.get("type")) and "properties" in part
        return inside | {"additionalProperties": False} if is_object else inside

    return jsonschema.Draft202012Validator(close(schema))


EXAMPLE = Finding(
    id="region-0",
    kind="region",
    severity="high",
    class_name="cat",
    class_number=0,
    group=None,
    sentence="Evidence in a corner.",
    effect=Effect(0.4, "share of images", 0.2, 0.6),
    null=Null(0.03, 0.001, 0.01),
    num_images=10,
    num_concerned=4,
    keys=("a.jpg",),
    region=Region("corner", 1, 2, (0.0, 1.0)),
    confirmation=Confirmation(
        "confirmed", Effect(0.3, "probability"), 0.0, Effect(0.1, "probability"), 0.0, Effect(0.5, "share")
    ),
    advice=Advice("Crop it."),
)


def test_an_audit_writes_what_the_schema_describes(
    audited: Path, closed: jsonschema.Draft202012Validator
) -> None:
    found = json.loads((audited / "findings.json").read_text())
    assert found["findings_version"] == FINDINGS_VERSION
    closed.validate(found)
    closed.validate({**found, "findings": [json.loads(json.dumps(EXAMPLE.to_dict()))]})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("accuracy", 1.1),
        ("num_images", -1),
        ("findings", [{"id": "a"}]),
        ("unheard_of", 1),
        ("findings_version", 3),
    ],
)
def test_the_check_sees_what_does_not_fit(
    key: str, value: object, audited: Path, closed: jsonschema.Draft202012Validator
) -> None:
    found = json.loads((audited / "findings.json").read_text())
    with pytest.raises(jsonschema.ValidationError):
        closed.validate({**found, key: value})


def test_the_schema_has_the_fields_of_a_finding(schema: dict[str, Any]) -> None:
    finding = schema["$defs"]["finding"]["properties"]
    assert list(finding) == [field.name for field in fields(Finding)]
    assert finding["severity"]["enum"] == list(SEVERITIES)
    assert finding["kind"]["enum"] == list(MODEL_KINDS)
    assert finding["keys"]["maxItems"] == MAX_KEYS


def test_every_key_has_a_description(schema: dict[str, Any]) -> None:
    def properties(part: Any, path: str) -> list[str]:
        if isinstance(part, list):
            return [name for each in part for name in properties(each, path)]
        if not isinstance(part, dict):
            return []
        bare = [
            f"{path}.{name}"
            for name, value in part.get("properties", {}).items()
            if "$ref" not in value and not value.get("description")
        ]
        return bare + [name for key, value in part.items() for name in properties(value, f"{path}.{key}")]

    assert properties(schema, "") == []
