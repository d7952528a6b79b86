"""The rule by which interventions confirm or refute a suspect.

Removing the region from its images has to lower the probability of the class by more than removing a control region does, or
pasting its pixels into other images has to raise it by more than pasting those of the control region. Edges that are the same in
many images may be those that a class has by nature, whose removal disturbs the network: pasting them has to raise it, too.

=============== ====================================================================================================
confirmed       either difference is at least `RELEVANT` on average, and its 95 % interval is above 0
refuted         the interval of both differences, or of the only one that was measured, is below `RELEVANT`; of edges also if
                pasting them does not raise the probability
not testable    fewer than `MIN_TESTED` images, no room for a control region, or intervals too wide for either of the above
not tested      no interventions
=============== ====================================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from ....pipeline.rng import derive_seed, numpy_generator
from ..findings.finding import Confirmation, Effect, Status
from ..findings.intervals import bootstrap_mean, wilson
from .interventions import OTHER, OWN

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from ..findings.finding import Finding

RELEVANT = 0.05
"""Smallest change of a probability, beyond that of the control region, worth a finding."""
MIN_TESTED = 5
"""Fewer images give intervals that mean nothing."""
MAX_OVERLAP = 0.34
"""Mean share of control regions inside the region from which on they are no control."""


def confirm_finding(finding: Finding, interventions: pa.Table, seed: int) -> Confirmation:
    """Judge a finding by its interventions.

    Args:
        finding: a suspect.
        interventions: records of the stage ``interventions``, of this and other findings.
        seed: of the plan, for the bootstrap.
    """
    rows = interventions.filter(pc.equal(interventions["finding"], finding.id))
    if not rows.num_rows:
        return Confirmation("not tested")
    own, other = (_columns(rows.filter(pc.equal(rows["role"], role))) for role in (OWN, OTHER))
    generator = numpy_generator(derive_seed("audit.interventions", seed, 0, f"interval {finding.id}"))
    elsewhere = other["prediction_before"] != finding.class_number
    flips = (other["prediction_after"] == finding.class_number)[elsewhere]
    status = decide(
        own["control"] - own["after"],
        other["after"] - other["control"],
        generator,
        overlap=float(own["control_overlap"].mean()) if len(own["after"]) else 1.0,
    )
    drop = _mean_effect(own["before"] - own["after"], generator)
    paste = _mean_effect(other["after"] - other["before"], generator)
    if finding.kind == "frame" and status == "confirmed" and not _raises(paste):
        status = "refuted"
    return Confirmation(
        status=status,
        drop=drop,
        control_drop=_mean(own["before"] - own["control"]),
        paste=paste,
        paste_control=_mean(other["control"] - other["before"]),
        flip_rate=_share_effect(flips),
    )


def decide(
    removed: NDArray[np.floating[Any]],
    pasted: NDArray[np.floating[Any]],
    generator: np.random.Generator,
    *,
    overlap: float = 0.0,
) -> Status:
    """Return the status of a suspect; see the module.

    Args:
        removed: by own image, the drop of the probability after removing the region minus that after the control region.
        pasted: by other image, the rise after pasting the region minus that after pasting the control region.
        generator: for the bootstrap.
        overlap: mean share of the control regions that is inside the region.
    """
    if overlap > MAX_OVERLAP:
        return "not testable"
    measured = [
        (each, bootstrap_mean(each, generator)) for each in (removed, pasted) if len(each) >= MIN_TESTED
    ]
    limits = [(float(each.mean()), *interval) for each, interval in measured if interval is not None]
    if any(mean >= RELEVANT and low > 0 for mean, low, _ in limits):
        return "confirmed"
    return "refuted" if limits and all(high < RELEVANT for *_, high in limits) else "not testable"


def _raises(change: Effect | None) -> bool:
    return change is not None and change.low is not None and change.low > 0


def _columns(rows: pa.Table) -> dict[str, NDArray[Any]]:
    names = ("before", "after", "control", "prediction_before", "prediction_after", "control_overlap")
    return {name: rows[name].to_numpy() for name in names}


def _mean_effect(values: NDArray[np.floating[Any]], generator: np.random.Generator) -> Effect | None:
    interval = bootstrap_mean(values, generator)
    return None if interval is None else Effect(float(values.mean()), "probability", *interval)


def _mean(values: NDArray[np.floating[Any]]) -> float | None:
    return float(values.mean()) if len(values) else None


def _share_effect(flags: NDArray[np.bool_]) -> Effect | None:
    interval = wilson(int(flags.sum()), len(flags))
    return None if interval is None else Effect(float(flags.mean()), "share of images", *interval)
