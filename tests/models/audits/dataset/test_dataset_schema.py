"""findings.json of a dataset audit has the keys and types of its schema and no others; findings are those of all audits."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from commands import lightwell
from lightwell.models.audits.dataset.summary import FINDINGS_VERSION
from lightwell.models.audits.findings.finding import DATASET_KINDS
from PIL import Image


def schema_of(package: str) -> dict[str, Any]:
    text = files(f"lightwell.models.audits.{package}").joinpath("findings.schema.json").read_text()
    return dict(json.loads(text))


def test_findings_are_described_as_in_audits_of_models_but_for_their_kinds() -> None:
    ours, other = (schema_of(package)["$defs"] for package in ("dataset", "gradcam"))
    assert ours["finding"]["properties"]["kind"]["enum"] == list(DATASET_KINDS)
    ours["finding"]["properties"]["kind"] = other["finding"]["properties"]["kind"]
    assert ours == {name: other[name] for name in ("effect", "finding")}


@pytest.mark.parametrize("number", [1, 12])
def test_what_the_command_writes_is_what_the_schema_describes(tmp_path: Path, number: int) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "bad.jpg").write_bytes(b"no image")
    for seed in range(number):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / "cat" / f"{seed}.png")
    assert lightwell("inspect", "photos", "--out", "out", "--quiet", cwd=tmp_path).returncode == 0
    schema = schema_of("dataset")
    jsonschema.Draft202012Validator.check_schema(schema)
    found = json.loads((tmp_path / "out" / "findings.json").read_text())
    jsonschema.Draft202012Validator(schema | {"additionalProperties": False}).validate(found)
    assert found["findings_version"] == FINDINGS_VERSION
    assert found["findings"][0]["kind"] == "unreadable"
