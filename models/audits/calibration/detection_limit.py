"""The smallest planted shortcut that an audit would have caught, from experiments with marks of several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ....pipeline.rng import derive_seed, numpy_generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROBABILITY = 0.9
"""Of being caught, at the limit."""
MIN_RELIED = 10
"""Experiments whose probe relies on its mark, below which no limit is fitted."""
NUM_RESAMPLES = 400
RIDGE = 0.05
"""Penalty of the slopes, so that they stay finite where all small marks are missed and all large ones are caught."""
NUM_STEPS = 25
"""Of Newton's method."""
NUM_AREAS = 200
"""Areas between the smallest and the largest planted one at which the fit is read."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of an experiment."""

    area: float
    """Share of the image that the mark covers."""
    prevalence: float
    """Share of the class's images with the mark."""
    relies: bool
    """The probe uses the mark."""
    found: bool
    """A finding above a note is about the mark."""
    confirmed: bool
    """Such a finding is confirmed by intervention."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The smallest area that is caught with `PROBABILITY`, for one prevalence; None above the largest planted area."""

    prevalence: float
    area: float | None
    low: float | None
    high: float | None
    """95 % bootstrap interval over experiments."""


def detection_limit(outcomes: Sequence[Outcome], seed: int) -> tuple[Limit, ...]:
    """Return the limit for each planted prevalence, from the experiments whose probe relies on its mark.

    A logistic regression of whether a mark was caught on the logarithms of area and prevalence. Empty with fewer than
    `MIN_RELIED` such experiments.
    """
    relied = [each for each in outcomes if each.relies]
    if len(relied) < MIN_RELIED:
        return ()
    areas = np.geomspace(min(each.area for each in outcomes), max(each.area for each in outcomes), NUM_AREAS)
    sizes = np.log2([[each.area, each.prevalence] for each in relied])
    found = np.array([each.found for each in relied], np.float64)
    centre = sizes.mean(axis=0)
    terms = np.column_stack([np.ones(len(relied)), sizes - centre])
    generator = numpy_generator(derive_seed("calibration", seed, 0, "detection limit"))
    drawn = generator.multinomial(len(relied), [1 / len(relied)] * len(relied), NUM_RESAMPLES)
    weights = np.vstack([np.ones(len(relied)), drawn])
    fits = fit_logistic(terms, found, weights)
    limits = []
    for prevalence in sorted({each.prevalence for each in outcomes}):
        grid = np.column_stack([np.ones(NUM_AREAS), np.log2(areas), np.full(NUM_AREAS, np.log2(prevalence))])
        grid[:, 1:] -= centre
        caught = grid @ fits.T >= np.log(PROBABILITY / (1 - PROBABILITY))
        first = np.where(caught.any(axis=0), areas[caught.argmax(axis=0)], np.inf)
        low, high = np.quantile(first[1:], (0.025, 0.975), method="closest_observation")
        limits.append(Limit(prevalence, *map(_finite, (first[0], low, high))))
    return tuple(limits)


def fit_logistic(
    terms: NDArray[np.float64], found: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fit penalised logistic regressions by Newton's method, one for each row of weights.

    Args:
        terms: (N, K), the first column of ones.
        found: (N,), 0 or 1.
        weights: (B, N), of the rows.

    Returns:
        Coefficients (B, K); negative slopes are set to 0, because a larger mark is not harder to find.
    """
    penalty = RIDGE * np.eye(terms.shape[1])
    fits = np.zeros((len(weights), terms.shape[1]))
    for _ in range(NUM_STEPS):
        chance = 1 / (1 + np.exp(-(fits @ terms.T)))
        gradient = (weights * (found - chance)) @ terms - fits @ penalty
        hessian = np.einsum("bn,ni,nj->bij", weights * chance * (1 - chance), terms, terms) + penalty
        fits = fits + np.clip(np.linalg.solve(hessian, gradient[..., None])[..., 0], -2, 2)
    fits[:, 1:] = np.maximum(fits[:, 1:], 0)
    return fits


def limit_to_dict(
    outcomes: Sequence[Outcome], seed: int, reason: str, facts: dict[str, Any]
) -> dict[str, Any]:
    """Return the detection limit as JSON values, for ``findings.json``.

    Args:
        outcomes: of all experiments.
        seed: of the plan, for the bootstrap.
        reason: why there were no experiments; empty if there were.
        facts: of the images and the mark.
    """
    limits = () if reason else detection_limit(outcomes, seed)
    num_relied = sum(each.relies for each in outcomes)
    if not reason and not limits:
        reason = (
            f"only {num_relied} of {len(outcomes)} probes relied on the planted mark, which is too few for a limit "
            f"({MIN_RELIED} are needed)"
        )
    return {
        "sentence": limit_sentence(limits, reason, facts),
        "reason": reason,
        "probability": PROBABILITY,
        **facts,
        "num_experiments": len(outcomes),
        "num_relied": num_relied,
        "limits": [asdict(each) for each in limits],
        "experiments": [
            {
                "area": area,
                "prevalence": prevalence,
                "num": len(group),
                "num_relied": sum(each.relies for each in group),
                "num_found": sum(each.relies and each.found for each in group),
                "num_confirmed": sum(each.relies and each.confirmed for each in group),
            }
            for prevalence, area in sorted({(each.prevalence, each.area) for each in outcomes})
            if (group := [each for each in outcomes if (each.prevalence, each.area) == (prevalence, area)])
        ],
    }


def limit_sentence(limits: Sequence[Limit], reason: str, facts: dict[str, Any]) -> str:
    """Return the limits, or the reason for having none, in words."""
    if reason:
        return f"The detection limit was not measured: {reason}."
    largest = percent(facts["largest_area"])
    parts = [f"in {percent(each.prevalence)} of its class's images {_area(each, largest)}" for each in limits]
    return (
        f"A sticker on which a probe of this network relies is caught with probability {PROBABILITY:g} if it covers, "
        f"{'; '.join(parts)}. Measured with {facts['images_per_class']} audited images per class."
    )


def percent(share: float) -> str:
    """Return a share as text."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _area(limit: Limit, largest: str) -> str:
    """Return the area of a limit, with its interval, as text."""
    if limit.low is None:
        return f"more than {largest} of the image"
    if limit.area is None:
        return f"more than {largest} of the image (95 % interval from {percent(limit.low)})"
    high = f"more than {largest}" if limit.high is None else percent(limit.high)
    return f"at least {percent(limit.area)} of the image (95 % interval {percent(limit.low)} to {high})"


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
