"""Which checks are not made, and why; what is counted where images have several labels."""

from __future__ import annotations

import numpy as np
import pytest
from lightwell.models.audits.dataset.checks.all_checks import run_checks
from lightwell.models.audits.dataset.checks.skipped_checks import skipped_checks

from .made_tables import make_table

LABELS = {"class balance", "properties that predict the class"}
NETWORK = {
    "suspected labels",
    "learning curve",
    "near duplicates by features",
    "outliers, coverage and domain gap",
}
SPLITS = np.array(["train", "val"] * 60, object)


def test_nothing_is_skipped_of_labelled_images_in_two_splits_with_features() -> None:
    table = make_table(120, labels=np.arange(120) % 2, splits=SPLITS, features=np.zeros((120, 3), np.float32))
    assert skipped_checks(table, is_multi_label=False) == {}


@pytest.mark.parametrize(
    ("labels", "is_multi_label", "reason"),
    [
        (np.full(120, -1), False, "images have no labels"),
        (np.full(120, -1), True, "images have several labels each"),
        (np.zeros(120, np.int64), False, "all images are of one class"),
    ],
)
def test_checks_of_labels_are_skipped_with_the_reason(
    labels: np.ndarray, is_multi_label: bool, reason: str
) -> None:
    found = skipped_checks(make_table(120, labels=labels), is_multi_label=is_multi_label)
    assert {found[name] for name in LABELS} == {reason}
    assert {found[name] for name in NETWORK} == {"they need a network; add --model"}
    assert found["leakage and drift between splits"]


def test_without_a_readable_image_only_the_files_are_checked() -> None:
    table = make_table(5, problems=np.full(5, "cannot be read", object))
    assert list(skipped_checks(table, is_multi_label=False).values()) == ["no image can be read"]
    findings, fixes = run_checks(table)
    assert [finding.kind for finding in findings] == ["unreadable"]
    assert len(fixes) == 5
