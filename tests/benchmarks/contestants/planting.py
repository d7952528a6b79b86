"""Figures of the conditions that ``planted`` has run: recall, false alarms, and images opened before the first marked one."""

from __future__ import annotations

import math
from statistics import fmean

from benchmarks.benchmark import Work
from benchmarks.planted import false_alarms, read_outcomes, recall


def ours(work: Work) -> float:
    """Percentage found by the audit."""
    return recall(read_outcomes(work.scratch))


def confirmed(work: Work) -> float:
    """Percentage found and confirmed by intervention."""
    counted = [each for each in read_outcomes(work.scratch) if each.counts]
    return 100 * fmean(each.confirmed for each in counted) if counted else math.nan


def alarms(work: Work) -> float:
    """False alarms of the audit for 100 classes of clean twins."""
    return false_alarms(read_outcomes(work.scratch))


def class_mean(work: Work) -> float:
    """Percentage found by the mean image of the class."""
    return recall(read_outcomes(work.scratch), "class-mean z-score")


def activation_clustering(work: Work) -> float:
    """Percentage found by activation clustering."""
    return recall(read_outcomes(work.scratch), "activation clustering")


def spray(work: Work) -> float:
    """Percentage found by SpRAy with k-means."""
    return recall(read_outcomes(work.scratch), "spray")


def at_random(work: Work) -> float:
    """Percentage found at random."""
    return recall(read_outcomes(work.scratch), "random")


def opened(work: Work) -> float:
    """Images opened in the order of the audit."""
    counted = [each.opened for each in read_outcomes(work.scratch) if each.counts]
    return fmean(each for each in counted if each is not None)


def opened_by(work: Work, name: str) -> float:
    """Images opened in the order of a baseline."""
    return fmean(each.baseline_opened[name] for each in read_outcomes(work.scratch) if each.counts)


def class_mean_opened(work: Work) -> float:
    """Images opened in the order of the class means."""
    return opened_by(work, "class-mean z-score")


def clustering_opened(work: Work) -> float:
    """Images opened in the order of activation clustering."""
    return opened_by(work, "activation clustering")


def spray_opened(work: Work) -> float:
    """Images opened in the order of SpRAy."""
    return opened_by(work, "spray")


def random_opened(work: Work) -> float:
    """Images opened at random."""
    return opened_by(work, "random")
