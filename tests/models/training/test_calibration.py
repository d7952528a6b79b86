"""Calibration: the error by its definition, and the temperature that made the labels."""

from __future__ import annotations

import numpy as np
import pytest
from lightwell.models.training.calibration import compute_calibration, fit_temperature
from lightwell.models.training.per_class import per_class_table


def test_the_error_is_the_mean_gap_of_bins_weighted_by_images() -> None:
    confidences = np.asarray([0.95, 0.95, 0.95, 0.55])
    probabilities = np.column_stack([confidences, 1 - confidences])
    found = compute_calibration(probabilities, np.asarray([0, 0, 1, 0]))
    assert found is not None
    assert found.ece == pytest.approx((3 * abs(0.95 - 2 / 3) + abs(0.55 - 1)) / 4)
    assert [one.num_images for one in found.bins] == [1, 3]
    assert found.bins[1].low <= 0.95 <= found.bins[1].high
    assert found.adaptive_ece == pytest.approx((0.05 + 0.05 + 0.95 + 0.45) / 4)
    assert compute_calibration(probabilities, np.full(4, -1)) is None


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_fitted_temperature_is_that_by_which_labels_were_drawn(temperature: float) -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 2, (20_000, 5))
    noise = generator.gumbel(0, 1, logits.shape)
    labels = (logits / temperature + noise).argmax(axis=1)  # drawn from the softmax
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_no_temperature_is_fitted_where_none_is_best() -> None:
    logits = np.eye(4)[np.arange(20) % 4]
    assert fit_temperature(logits, np.arange(20) % 4) == 1
    assert fit_temperature(logits, np.full(20, -1)) == 1
    assert fit_temperature(logits[:5], np.zeros(5, int)) == 1


def test_the_table_of_classes_is_that_of_the_confusion_matrix() -> None:
    rows = per_class_table(np.asarray([[3, 1, 0], [0, 2, 0], [0, 0, 0]]), ("a", "b", "c"))
    assert rows[0] == {"class": "a", "images": 4, "predicted": 3, "precision": 1, "recall": 0.75, "f1": 6 / 7}
    assert rows[1]["precision"] == pytest.approx(2 / 3)
    assert rows[2] == {
        "class": "c",
        "images": 0,
        "predicted": 0,
        "precision": None,
        "recall": None,
        "f1": None,
    }
