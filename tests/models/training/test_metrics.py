"""Metrics against scikit-learn and against values computed by hand."""

import numpy as np
import pytest
from lightwell.models.training.metrics import compute_metrics, log_odds
from sklearn.metrics import balanced_accuracy_score, roc_auc_score


def softmax(scores: np.ndarray) -> np.ndarray:
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def random_scores(num_classes: int, size: int = 400) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, num_classes, size)
    scores = generator.normal(size=(size, num_classes))
    scores[np.arange(size), labels] += 0.8
    return softmax(scores), labels


def test_binary_metrics_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9]])
    metrics = compute_metrics(probabilities, np.array([0, 0, 1, 1, 1]))
    assert metrics.confusion.tolist() == [[1, 1], [1, 2]]
    assert metrics.accuracy == pytest.approx(3 / 5)
    assert metrics.balanced_accuracy == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert metrics.auroc == pytest.approx(5 / 6)
    assert metrics.as_dict()["images"] == 5
    assert "notes" not in metrics.as_dict()


@pytest.mark.parametrize("num_classes", [2, 5])
def test_equal_to_scikit_learn(num_classes: int) -> None:
    probabilities, labels = random_scores(num_classes)
    metrics = compute_metrics(probabilities, labels)
    shown = probabilities[:, 1] if num_classes == 2 else probabilities
    assert metrics.auroc == pytest.approx(roc_auc_score(labels, shown, multi_class="ovr", average="macro"))
    assert metrics.balanced_accuracy == pytest.approx(
        balanced_accuracy_score(labels, probabilities.argmax(1))
    )


def test_replaced_and_unlabelled_rows_are_left_out() -> None:
    probabilities, labels = random_scores(3, 60)
    labels[:5] = -1
    ignored = np.zeros(60, bool)
    ignored[50:] = True
    metrics = compute_metrics(probabilities, labels, ignored)
    alone = compute_metrics(probabilities[5:50], labels[5:50])
    assert (metrics.num_images, metrics.num_ignored) == (45, 15)
    assert (metrics.accuracy, metrics.auroc) == (alone.accuracy, alone.auroc)


def test_an_absent_class_makes_auroc_undefined_with_a_reason() -> None:
    metrics = compute_metrics(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0]))
    assert metrics.auroc is None
    assert metrics.notes == {"auroc": "only class 0 is present"}
    assert (metrics.accuracy, metrics.balanced_accuracy) == (0.5, 0.5)


def test_auroc_averages_only_over_classes_that_occur() -> None:
    probabilities, labels = random_scores(4)
    kept = labels != 2
    metrics = compute_metrics(probabilities[kept], labels[kept])
    areas = [roc_auc_score(labels[kept] == c, probabilities[kept, c]) for c in (0, 1, 3)]
    assert metrics.auroc == pytest.approx(np.mean(areas))


def test_no_labelled_rows_give_none_and_a_note() -> None:
    metrics = compute_metrics(np.full((2, 2), 0.5), np.array([0, 1]), np.array([True, True]))
    assert (metrics.accuracy, metrics.balanced_accuracy, metrics.auroc) == (None, None, None)
    assert set(metrics.notes) == {"accuracy", "balanced_accuracy", "auroc"}
    assert metrics.confusion.shape == (2, 2)


def test_scores_that_are_not_finite_are_not_ranked() -> None:
    metrics = compute_metrics(np.array([[0.9, 0.1], [np.nan, np.nan]]), np.array([0, 1]))
    assert metrics.auroc is None
    assert metrics.notes["auroc"] == "some scores are not finite"


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_log_odds_are_those_of_the_softmax_and_do_not_saturate(num_classes: int) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (50, num_classes))
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        log_odds(logits), np.log(probabilities / (1 - probabilities)), rtol=1e-9, atol=1e-9
    )
    assert np.array_equal(log_odds(logits).argmax(axis=1), logits.argmax(axis=1))
    huge = np.arange(num_classes * 3.0).reshape(3, num_classes) * 1000
    assert np.isfinite(log_odds(huge)).all()
    steps = log_odds(np.array([[0.0, 50.0], [0.0, 60.0], [0.0, 70.0]]))[:, 1]
    assert steps.tolist() == [50, 60, 70]
