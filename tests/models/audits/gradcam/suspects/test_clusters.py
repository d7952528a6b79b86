"""Minority clusters with evidence of their own."""

from __future__ import annotations

import numpy as np
from image_tables import SIDE, image_table, plant
from lightwell.models.audits.gradcam.suspects.clusters import cluster_suspects, region_of_its_own
from lightwell.models.audits.gradcam.suspects.search import find_suspects


def test_images_with_their_evidence_elsewhere_are_a_cluster_with_that_region() -> None:
    table = image_table(num_classes=2)
    planted = np.arange(50, 62)
    plant(table, planted)
    found = cluster_suspects(table)
    assert [finding.class_name for finding in found] == ["class1"]
    assert set(table.keys_of(planted)) <= set(found[0].keys)
    assert found[0].num_concerned <= 15
    assert found[0].region is not None
    inside = found[0].region.weights > 0.5
    assert inside[-2:, :2].all()
    assert inside.sum() <= 8
    assert found[0].effect.value > 0.4


def test_images_without_a_plant_have_no_cluster_with_a_region() -> None:
    assert [
        finding for seed in range(5) for finding in cluster_suspects(image_table(num_classes=2, seed=seed))
    ] == []


def test_one_planted_mark_is_one_finding_of_the_class() -> None:
    table = image_table(num_classes=2)
    plant(table, np.arange(50, 62))
    assert [finding.class_name for finding in find_suspects(table) if finding.region is not None] == [
        "class1"
    ]


def test_of_two_parts_the_one_with_more_excess_is_the_region() -> None:
    mean, rest = np.full((SIDE, SIDE), 0.01), np.full((SIDE, SIDE), 0.02)
    mean[0, 0], mean[6, 5:] = 0.2, 0.15
    place = region_of_its_own(mean.astype(np.float32), rest.astype(np.float32))
    assert place is not None
    assert np.argwhere(place.weights > 0).tolist() == [[6, 5], [6, 6]]
    assert region_of_its_own(rest.astype(np.float32), rest.astype(np.float32)) is None
