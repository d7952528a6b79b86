"""Slices of an audit's images, and rank profiles of classes."""

from __future__ import annotations

import numpy as np
import pytest
from image_tables import SIDE, image_table, plant
from lightwell.models.audits.gradcam.suspects.profiles import profile_correlations, profile_suspects
from lightwell.models.audits.gradcam.suspects.slices import slice_suspects, unusual_evidence
from lightwell.pipeline.rng import numpy_generator
from scipy import stats


def facts(num: int = 200) -> dict[str, np.ndarray]:
    generator = numpy_generator(9)
    return {
        "format": generator.choice(np.array(["JPEG", "PNG"], object), num),
        "brightness": generator.random(num),
    }


def test_errors_in_dark_images_of_one_format_are_a_slice() -> None:
    table = image_table(facts=facts())
    wrong = (table.facts["format"] == "PNG") & (table.facts["brightness"] < 0.25)
    table.predictions[wrong] = (table.labels[wrong] + 1) % 4
    (finding,) = slice_suspects(table)
    assert finding.group is not None
    assert "format is PNG" in finding.group
    assert "brightness is at most" in finding.group
    assert set(finding.keys) <= set(table.keys_of(np.flatnonzero(wrong)))
    assert finding.effect.value > 0.9


def test_unusual_evidence_of_one_format_is_a_slice() -> None:
    formats = np.where(np.arange(200) % 5 == 0, "PNG", "JPEG").astype(object)
    table = image_table(facts={"format": formats})
    plant(table, np.flatnonzero(formats == "PNG")[::4])
    (finding,) = slice_suspects(table)
    assert finding.group == "format is PNG"
    assert finding.effect.value == pytest.approx(0.25)
    assert unusual_evidence(table, np.arange(200)).sum() == 10


def test_errors_that_follow_the_class_only_are_no_slice() -> None:
    table = image_table(facts=facts())
    table.predictions[:30] = 2
    assert slice_suspects(table) == []


def test_a_class_with_its_evidence_elsewhere_departs_from_the_common_profile() -> None:
    table = image_table(num_classes=8)
    assert profile_suspects(table) == []
    table.shares[50:100] = np.roll(table.shares[50:100], (3, -3), axis=(1, 2))
    (finding,) = profile_suspects(table)
    assert finding.class_name == "class1"
    assert finding.null.q is not None
    assert finding.null.q <= 0.05
    assert "lower left ninth" in finding.sentence


def test_correlations_of_profiles_equal_scipys_spearman() -> None:
    means = numpy_generator(5).random((4, 9))
    expected = [
        stats.spearmanr(means[n], np.delete(means, n, axis=0).mean(axis=0)).statistic for n in range(4)
    ]
    np.testing.assert_allclose(profile_correlations(means), expected)
    assert profile_correlations(np.ones((3, SIDE))).tolist() == [0, 0, 0]
