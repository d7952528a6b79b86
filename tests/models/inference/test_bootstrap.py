"""Bootstrap intervals: the metrics of resampled images, by their definition."""

from __future__ import annotations

import numpy as np
import pytest
from lightwell.models.inference.evaluation.bootstrap import bootstrap_intervals
from lightwell.models.training.metrics import compute_metrics
from lightwell.pipeline.rng import derive_seed, numpy_generator


@pytest.mark.parametrize("num_classes", [2, 4])
def test_intervals_are_percentiles_of_the_metrics_of_resampled_images(num_classes: int) -> None:
    generator = np.random.default_rng(num_classes)
    labels = generator.integers(0, num_classes, 40)
    scores = generator.normal(0, 1, (40, num_classes)).round(1)  # with ties
    scores[np.arange(40), labels] += 0.7
    found = bootstrap_intervals(scores, labels, num_samples=60, seed=9)
    drawn = numpy_generator(derive_seed("bootstrap", 9, 0, "")).integers(0, 40, (60, 40))
    samples = [compute_metrics(scores[rows], labels[rows]) for rows in drawn]
    for name, interval in found.items():
        values = [getattr(sample, name) for sample in samples]
        assert interval == pytest.approx(np.quantile(values, (0.025, 0.975)))
    assert found == bootstrap_intervals(scores, labels, num_samples=60, seed=9)
    assert found != bootstrap_intervals(scores, labels, num_samples=60, seed=10)


def test_unlabelled_images_do_not_count_and_a_single_class_has_no_auroc() -> None:
    scores = np.asarray([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    found = bootstrap_intervals(scores, np.asarray([0, 0, -1]), num_samples=20, seed=0)
    assert found == {"accuracy": [1.0, 1.0], "balanced_accuracy": [1.0, 1.0], "auroc": None}
    nothing = {"accuracy": None, "balanced_accuracy": None, "auroc": None}
    assert bootstrap_intervals(scores, np.asarray([-1, -1, -1]), num_samples=20, seed=0) == nothing
    assert bootstrap_intervals(scores, np.asarray([0, 1, 1]), num_samples=0, seed=0) == nothing
