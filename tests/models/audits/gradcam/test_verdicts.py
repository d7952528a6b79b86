"""From candidates to findings: severity, sentences and advice."""

from __future__ import annotations

from dataclasses import replace

import albumentations
import numpy as np
import pytest
from lightwell import Plan
from lightwell.models.audits.findings.finding import Confirmation, Effect, Finding, Null, Region
from lightwell.models.audits.gradcam.verdicts import advice_of, conclude, kept_box
from lightwell.pipeline.config.safe_yaml import parse_document


def suspect(weights: np.ndarray | None = None, **changes: object) -> Finding:
    """Return a candidate region in the lower left corner."""
    if weights is None:
        weights = np.zeros((7, 7))
        weights[-1, :3] = 1
    finding = Finding(
        "region-1", "region", "low", "jacket", 3, None, "In 21 % ...", Effect(0.21, "share of images"), Null(0.03), 114, 24, ("a",),
        region=Region.from_weights("region at the lower left", weights),
    )  # fmt: skip
    return replace(finding, **changes)  # type: ignore[arg-type]


def outcome(status: str, drop: float, paste: float | None = None) -> Confirmation:
    effects = [
        None if value is None else Effect(value, "probability", value - 0.05, value + 0.05)
        for value in (drop, paste)
    ]
    return Confirmation(status, effects[0], 0.02, effects[1])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "trusted", "severity"),
    [
        ({"confirmation": outcome("confirmed", 0.31)}, True, "high"),
        ({"confirmation": outcome("confirmed", 0.1)}, True, "medium"),
        ({"confirmation": outcome("confirmed", 0.31)}, False, "high"),
        ({}, True, "low"),
        ({}, False, "note"),
        ({"confirmation": outcome("refuted", 0.0)}, True, "note"),
        ({"kind": "slice", "effect": Effect(0.4, "share of errors")}, True, "medium"),
        ({"kind": "confident_error"}, True, "low"),
        ({"kind": "profile"}, True, "note"),
        ({"kind": "frame"}, True, "note"),
        ({"kind": "frame", "confirmation": outcome("confirmed", 0.3, 0.2)}, True, "high"),
        ({"kind": "frame", "confirmation": outcome("confirmed", 0.1, 0.1)}, True, "medium"),
        ({"kind": "frame", "confirmation": outcome("refuted", 0.3, -0.08)}, True, "note"),
    ],
)
def test_severity_follows_the_table(changes: dict[str, object], trusted: bool, severity: str) -> None:
    (finding,) = conclude([suspect(**changes)], trusted=trusted)
    assert finding.severity == severity


def test_findings_are_sorted_by_severity_and_then_by_size() -> None:
    small = suspect(id="small", effect=Effect(0.11, "share of images"))
    proven = suspect(
        id="proven", effect=Effect(0.1, "share of images"), confirmation=outcome("confirmed", 0.3)
    )
    assert [each.id for each in conclude([small, suspect(), proven])] == ["proven", "region-1", "small"]


def test_the_sentence_gives_the_result_of_the_test() -> None:
    (finding,) = conclude([suspect(confirmation=outcome("confirmed", 0.31))])
    assert finding.sentence == (
        "In 21 % ... Without this region the probability of jacket changes by -0.31 (-0.36 to -0.26), without a control "
        "region of the same size by -0.02."
    )


def test_the_yaml_of_the_advice_crops_the_region_away_in_a_plan(plan: Plan) -> None:
    advice = advice_of(suspect())
    assert advice is not None
    (crop,) = parse_document(advice.yaml, "advice")["preprocess"]
    cropped = plan.model_validate({"index": plan.index, "preprocess": [crop, *plan.preprocess]})
    assert cropped.fingerprint() != plan.fingerprint()
    assert kept_box(Region.from_weights("", suspect().region.weights)) == (
        0.0,
        0.0,
        1.0,
        pytest.approx(6 / 7),
    )  # type: ignore[union-attr]


def test_a_region_inside_the_image_is_hidden_by_patches_of_its_size(plan: Plan) -> None:
    weights = np.zeros((7, 7))
    weights[3, 3] = 1
    advice = advice_of(suspect(weights))
    assert advice is not None
    (dropout,) = parse_document(advice.yaml, "advice")["augment"]
    assert dropout["CoarseDropout"]["hole_height_range"] == [0.0714, 0.143]
    changed = plan.model_validate({"index": plan.index, "preprocess": plan.preprocess, "augment": [dropout]})
    assert changed.fingerprint() != plan.fingerprint()


def test_a_frame_is_cropped_on_all_sides_and_its_pixels_can_be_put_back() -> None:
    weights = np.ones((28, 28))
    weights[1:-1, 1:-1] = 0
    advice = advice_of(suspect(weights))
    assert advice is not None
    text = advice.yaml.replace("# to put", "#! to put").replace("# - ", "  - ").replace("#     ", "      ")
    crop, pad = parse_document(text, "advice")["preprocess"]
    pixels = np.random.default_rng(0).integers(1, 256, (224, 224, 3), np.uint8)
    found = pixels
    for step in (crop, pad):
        found = albumentations.CropAndPad(**step["CropAndPad"], p=1)(image=found)["image"]
    assert found.shape == pixels.shape
    assert (found[8:-8, 8:-8] == pixels[8:-8, 8:-8]).all()
    assert found.astype(bool).sum() == 208 * 208 * 3
