"""Area under the ROC curve, average precision and thresholds, exact and from histograms."""

import numpy as np
import pytest
import torch
from lightwell.models.training.distributed.context import DistributedContext
from lightwell.models.training.tasks.ranking import MAX_EXACT, RankedScores, Ranking
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

BINNED_ERROR = 2e-3


def scores_and_truth(num_rows: int = 3000, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Three classes, of which the last does not occur; a tenth of the targets is missing."""
    rng = np.random.default_rng(1)
    truth = rng.choice([0, 1, -1], (num_rows, 3), p=[0.6, 0.3, 0.1]).astype(np.int8)
    truth[:, 2] = np.minimum(truth[:, 2], 0)
    return torch.from_numpy(rng.normal(truth, 1.5) * scale), torch.from_numpy(truth)


def ranking(scores: torch.Tensor, truth: torch.Tensor, *, max_exact: int = MAX_EXACT) -> Ranking:
    ranked = RankedScores(len(scores), scores.shape[1], max_exact)
    for start in range(0, len(scores), 700):
        ranked.update(scores[start : start + 700], truth[start : start + 700])
    return ranked.gather(DistributedContext())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize(("max_exact", "error"), [(MAX_EXACT, 1e-12), (0, BINNED_ERROR)])
def test_values_are_scikit_learns_exact_or_within_the_error_of_a_bin(
    max_exact: int, error: float, scale: float
) -> None:
    scores, truth = scores_and_truth(scale=scale)
    found = ranking(scores, truth, max_exact=max_exact)
    for number in (0, 1):
        counted = truth[:, number] >= 0
        known = truth[counted, number].numpy(), scores[counted, number].numpy()
        assert found.area_under_roc(number) == pytest.approx(roc_auc_score(*known), abs=error)
        assert found.average_precision(number) == pytest.approx(average_precision_score(*known), abs=error)


@pytest.mark.parametrize("max_exact", [MAX_EXACT, 0])
def test_a_class_that_does_not_occur_has_no_values(max_exact: int) -> None:
    found = ranking(*scores_and_truth(), max_exact=max_exact)
    assert found.counts(2)[1] == 0
    values = (
        found.area_under_roc(2),
        found.average_precision(2),
        found.best_f1_threshold(2),
        found.f1_from(2, 0.0),
    )
    assert values == (None,) * 4


@pytest.mark.parametrize(("max_exact", "error"), [(MAX_EXACT, 1e-12), (0, BINNED_ERROR)])
def test_thresholds_give_the_best_f1_of_all(max_exact: int, error: float) -> None:
    scores, truth = scores_and_truth(120)
    found = ranking(scores, truth, max_exact=max_exact)
    for number in (0, 1):
        counted = truth[:, number] >= 0
        known, values = truth[counted, number].numpy(), scores[counted, number].numpy()
        best = max(f1_score(known, values >= value) for value in values)
        threshold = found.best_f1_threshold(number)
        assert f1_score(known, values >= threshold) == pytest.approx(best, abs=5 * error)
        assert found.f1_from(number, threshold) == pytest.approx(
            f1_score(known, values >= threshold), abs=error
        )


def test_scores_are_binned_above_the_bound_and_kept_up_to_it() -> None:
    assert RankedScores(10, 3, max_exact=30).is_exact
    assert not RankedScores(11, 3, max_exact=30).is_exact


def test_binning_keeps_the_order_of_saturated_and_of_huge_scores() -> None:
    scores = torch.tensor(
        [[-1e9], [-50.0], [-40.0], [-0.1], [0.1], [40.0], [50.0], [1e5]], dtype=torch.float64
    )
    truth = torch.tensor([[0], [0], [0], [0], [1], [1], [1], [1]], dtype=torch.int8)
    assert ranking(scores, truth, max_exact=0).area_under_roc(0) == 1
