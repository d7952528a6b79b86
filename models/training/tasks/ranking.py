"""Area under the ROC curve and average precision of a split, exact or from histograms of scores.

Both depend on the order of all scores of a class. Up to ``MAX_EXACT`` rows x classes the scores are kept and the values are
those of scikit-learn. Above, each class has a histogram of ``NUM_BINS`` bins on a scale that keeps the order: memory no
longer grows with the split, and images whose scores share a bin count as equal. The error of the area is then at most half
the share of (positive, negative) pairs within a bin.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from ..distributed.context import DistributedContext

MAX_EXACT = 2**24
"""Rows x classes up to which scores are kept: 144 MiB."""
NUM_BINS = 4096
_LIMIT, _SCALE = 20.0, 1000.0
"""Scores are binned by asinh(1000 x), clipped to +-20: 0.00001 wide near 0, 1 % of the score above 0.001, up to 240,000."""


@dataclass
class RankedScores:
    """Scores of a split by class; batches are added on each rank, and ``gather`` joins them."""

    num_rows: int
    """Rows of the split, over all ranks."""
    num_classes: int
    max_exact: int = MAX_EXACT
    _scores: list[torch.Tensor] = field(default_factory=list)
    _truth: list[torch.Tensor] = field(default_factory=list)
    _histogram: torch.Tensor | None = None
    """int64 (2, classes, bins): of negative and of positive rows."""

    @property
    def is_exact(self) -> bool:
        """Whether scores are kept."""
        return self.num_rows * self.num_classes <= self.max_exact

    def update(self, scores: torch.Tensor, truth: torch.Tensor) -> None:
        """Add a batch.

        Args:
            scores: float64 (N, classes) on the CPU; only their order within a class matters.
            truth: int8 (N, classes): 1 has the class, 0 has not, -1 is not counted.
        """
        if self.is_exact:
            self._scores.append(scores)
            self._truth.append(truth)
            return
        if self._histogram is None:
            self._histogram = torch.zeros(2, self.num_classes, NUM_BINS, dtype=torch.int64)
        bins = (
            ((torch.asinh(scores * _SCALE) + _LIMIT) * (NUM_BINS / (2 * _LIMIT)))
            .clamp(0, NUM_BINS - 1)
            .long()
        )
        for sign in (0, 1):
            rows, classes = torch.nonzero(truth == sign, as_tuple=True)
            flat = classes * NUM_BINS + bins[rows, classes]
            counts = torch.bincount(flat, minlength=self.num_classes * NUM_BINS)
            self._histogram[sign] += counts.view(self.num_classes, NUM_BINS)

    def gather(self, dist: DistributedContext) -> Ranking:
        """Join the scores of all ranks, which added batches of equal lengths; a collective operation."""
        if self.is_exact:
            scores = torch.cat(self._scores) if self._scores else torch.zeros(0, self.num_classes)
            truth = (
                torch.cat(self._truth) if self._truth else torch.zeros(0, self.num_classes, dtype=torch.int8)
            )
            return Ranking(dist.all_gather(scores.double()).numpy(), dist.all_gather(truth).numpy())
        empty = torch.zeros(2, self.num_classes, NUM_BINS, dtype=torch.int64)
        histogram = dist.all_reduce(empty if self._histogram is None else self._histogram)
        return Ranking(histogram=histogram.numpy())


@dataclass(frozen=True)
class Ranking:
    """Scores of a whole split, or their histograms."""

    scores: np.ndarray | None = None
    truth: np.ndarray | None = None
    histogram: np.ndarray | None = None

    def counts(self, number: int) -> tuple[int, int]:
        """Return the numbers of rows without and with a class."""
        if self.histogram is not None:
            return int(self.histogram[0, number].sum()), int(self.histogram[1, number].sum())
        assert self.truth is not None
        column = self.truth[:, number]
        return int((column == 0).sum()), int((column == 1).sum())

    def area_under_roc(self, number: int) -> float | None:
        """Return the area under the ROC curve of a class; None unless there are rows with and without it."""
        if 0 in self.counts(number):
            return None
        if self.histogram is None:
            from sklearn.metrics import roc_auc_score

            return float(roc_auc_score(*self._column(number)))
        without, having = self.histogram[:, number].astype(np.float64)
        below = np.cumsum(without) - without
        return float((having * (below + without / 2)).sum() / (having.sum() * without.sum()))

    def average_precision(self, number: int) -> float | None:
        """Return the average precision of a class; None unless a row has it."""
        if not self.counts(number)[1]:
            return None
        if self.histogram is None:
            from sklearn.metrics import average_precision_score

            return float(average_precision_score(*self._column(number)))
        without, having = self.histogram[:, number, ::-1].astype(np.float64)
        hits, found = np.cumsum(having), np.cumsum(having + without)
        some = having > 0
        return float((having[some] * hits[some] / found[some]).sum() / having.sum())

    def best_f1_threshold(self, number: int) -> float | None:
        """Return the score from which on a class is best predicted by F1; None unless a row has it.

        It lies in the middle between two scores, or at the edge of a bin.
        """
        if not self.counts(number)[1]:
            return None
        if self.histogram is None:
            truth, scores = self._column(number)
            values, which = np.unique(-scores, return_inverse=True)
            having = np.bincount(which, weights=truth, minlength=len(values))
            found = np.cumsum(np.bincount(which, minlength=len(values)))
            edges = -(values + np.append(values[1:], values[-1] + 2)) / 2
        else:
            without, having = self.histogram[:, number, ::-1].astype(np.float64)
            found = np.cumsum(having + without)
            edges = np.sinh(np.arange(NUM_BINS - 1, -1, -1) * (2 * _LIMIT / NUM_BINS) - _LIMIT) / _SCALE
        f1 = 2 * np.cumsum(having) / (found + having.sum())
        return float(edges[int(f1.argmax())])

    def f1_from(self, number: int, score: float) -> float | None:
        """Return the F1 of a class that is predicted from a score on; None unless a row has it."""
        num_having = self.counts(number)[1]
        if not num_having:
            return None
        if self.histogram is None:
            truth, scores = self._column(number)
            hits, found = int(truth[scores >= score].sum()), int((scores >= score).sum())
        else:
            first = int(
                np.clip(
                    (np.arcsinh(score * _SCALE) + _LIMIT) * (NUM_BINS / (2 * _LIMIT)) + 0.5, 0, NUM_BINS - 1
                )
            )
            hits = int(self.histogram[1, number, first:].sum())
            found = hits + int(self.histogram[0, number, first:].sum())
        return 2 * hits / (found + num_having)

    def _column(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return truth and scores of the counted rows of a class."""
        assert self.truth is not None
        assert self.scores is not None
        counted = self.truth[:, number] >= 0
        return self.truth[counted, number], self.scores[counted, number]
