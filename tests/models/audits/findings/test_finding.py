"""Findings: their records and JSON come back equal, and their ids are stable."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from lightwell.models.audits.findings.finding import (
    SCHEMA,
    Advice,
    Confirmation,
    Effect,
    Finding,
    Null,
    Region,
    finding_id,
    findings_batch,
    read_findings,
)

FULL = Finding(
    id="region-1",
    kind="region",
    severity="high",
    class_name="jacket",
    class_number=3,
    group="camera = A",
    sentence="In 21 % of the images ...",
    effect=Effect(0.21, "share of images", 0.15, 0.28),
    null=Null(0.03, 1e-9, 1e-7),
    num_images=114,
    num_concerned=24,
    keys=("a.jpg", "b.jpg"),
    other_keys=("c.jpg",),
    region=Region.from_weights("lower left corner", np.array([[0.0, 0.25], [1.0, 0.0]])),
    confirmation=Confirmation("confirmed", Effect(0.31, "probability", 0.25, 0.38), 0.02),
    advice=Advice("Crop the border.", "preprocess:\n  - CenterCrop: {height: 200, width: 200}\n"),
)
BARE = replace(
    FULL, class_name=None, class_number=-1, group=None, region=None, confirmation=Confirmation(), advice=None
)


def test_findings_come_back_equal_from_records_and_from_json() -> None:
    records = findings_batch([FULL, BARE])
    assert records.schema.equals(SCHEMA)
    assert read_findings(records) == (FULL, BARE)
    assert [
        Finding.from_dict(fields) for fields in json.loads(json.dumps([FULL.to_dict(), BARE.to_dict()]))
    ] == [
        FULL,
        BARE,
    ]


def test_no_findings_are_an_empty_table_of_the_schema() -> None:
    records = findings_batch([])
    assert records.schema.equals(SCHEMA)
    assert read_findings(records) == ()


def test_an_id_depends_on_what_is_inside_the_region_only() -> None:
    def id_of(weights: list[list[float]], subject: str = "jacket") -> str:
        return finding_id("region", subject, Region.from_weights("corner", np.array(weights)))

    assert id_of([[0.0, 0.9]]) == id_of([[0.2, 0.6]])
    assert len({id_of([[0.0, 0.9]]), id_of([[0.9, 0.0]]), id_of([[0.0], [0.9]]), id_of([[0, 0.9]], "x")}) == 4
