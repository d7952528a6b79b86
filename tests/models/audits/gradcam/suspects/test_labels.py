"""Confident errors and suspected labels."""

from __future__ import annotations

import numpy as np
from image_tables import image_table
from lightwell.models.audits.findings.label_noise import disagreement
from lightwell.models.audits.findings.out_of_fold import FoldedFeatures, assign_folds, out_of_fold
from lightwell.models.audits.gradcam.suspects.labels import confident_errors, suspected_labels
from lightwell.pipeline.rng import numpy_generator


def test_more_confident_errors_than_the_probabilities_allow_for_are_found() -> None:
    table = image_table(confidences=np.full(200, 0.99, np.float32))
    table.predictions[:8] = 2
    (finding,) = confident_errors(table)
    assert (finding.class_name, finding.num_concerned) == ("class2", 8)
    assert set(finding.keys) == set(table.keys_of(range(8)))
    assert finding.null.p is not None
    assert finding.null.p < 1e-3


def test_errors_that_the_probabilities_announce_are_no_finding() -> None:
    table = image_table(confidences=np.full(200, 0.9, np.float32))
    table.predictions[::10] = (table.predictions[::10] + 1) % 4
    assert confident_errors(table) == []


def test_clean_labels_are_suspected_only_where_the_image_lies_nearer_to_another_class() -> None:
    suspected, nearer = 0, 0
    for seed in range(4):
        table = image_table(seed=seed)
        apart = table.features + 3 * np.eye(8, dtype=np.float32)[table.labels]
        assert suspected_labels(image_table(seed=seed, features=apart)) == []
        distances = np.linalg.norm(table.features[:, None] - 3 * np.eye(8)[:4], axis=2)
        keys = set(table.keys_of(np.flatnonzero(distances.argmin(axis=1) != table.labels)))
        for finding in suspected_labels(table):
            suspected += finding.num_concerned
            nearer += len(keys & set(finding.keys))
    assert nearer >= 0.9 * suspected > 0


def test_wrong_labels_are_found_by_the_features() -> None:
    table = image_table()
    wrong = np.array([3, 60, 110, 160, 190])
    table.labels[wrong] = (table.labels[wrong] + 1) % 4
    (finding,) = suspected_labels(table)
    assert len(set(finding.keys) & set(table.keys_of(wrong))) >= 4
    assert finding.num_concerned <= 12


def test_a_classifier_never_sees_the_images_that_it_scores() -> None:
    """With labels that mean nothing, out-of-fold accuracy is chance, and that of a fitted classifier would not be."""
    generator = numpy_generator(0)
    features, labels = generator.normal(size=(80, 60)), np.repeat([0, 1], 40)
    folds = assign_folds(labels, generator)
    assert all((np.bincount(labels[folds == fold]) == 8).all() for fold in range(5))
    scores = out_of_fold(FoldedFeatures.of(features, np.arange(80), folds), labels)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert (scores.argmax(axis=1) == labels).mean() < 0.7


def test_a_label_is_contradicted_by_the_most_probable_class() -> None:
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.45, 0.55]])
    margins, suggested = disagreement(probabilities, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(margins, [0, np.log(7 / 3), 0, 0])
    assert suggested[1] == 1
