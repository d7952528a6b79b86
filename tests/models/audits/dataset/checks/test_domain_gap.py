"""The gap grows with the distance of the inputs of normalization layers from their running statistics, and is the formula's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from lightwell.models.audits.dataset.checks.domain_gap import find_domain_gap, measure_gap
from lightwell.models.audits.dataset.domain_stage import DOMAIN_SCHEMA

from .made_tables import make_table


def statistics_of(shift: float, deviation: float, num_batches: int = 8, size: int = 16) -> pa.Table:
    """Make records of two layers whose channels have a mean and a standard deviation, in those of training."""
    rows: list[dict[str, Any]] = []
    for number in range(num_batches):
        wave = 0.05 * (-1) ** number
        for layer, width in (("early", 5), ("late", 9)):
            means = np.full(width, shift + wave)
            squares = deviation**2 + shift**2 + 2 * shift * wave
            rows.append(
                {
                    "layer": layer,
                    "num_images": size,
                    "sums": (size * means).tolist(),
                    "squares": [size * squares] * width,
                }
            )
    return pa.Table.from_pylist(rows, schema=DOMAIN_SCHEMA)


@pytest.mark.parametrize(
    ("shift", "deviation", "severity"), [(0.0, 1.1, "note"), (0.3, 1.0, "low"), (0.6, 1.8, "medium")]
)
def test_the_gap_is_the_distance_between_normal_distributions(
    shift: float, deviation: float, severity: str
) -> None:
    gap = measure_gap(statistics_of(shift, deviation))
    assert gap is not None
    assert gap.value == pytest.approx(np.hypot(shift, deviation - 1))
    assert gap.low is not None
    assert gap.high is not None
    assert gap.low <= gap.value <= gap.high
    (found,) = find_domain_gap(make_table(200), gap)
    assert found.severity == severity
    assert found.num_concerned == gap.num_images == 128


def test_few_images_and_no_layers_have_no_gap_and_few_batches_no_interval() -> None:
    assert measure_gap(statistics_of(0.0, 1.0, 2, 16)) is None
    assert measure_gap(DOMAIN_SCHEMA.empty_table()) is None
    assert find_domain_gap(make_table(5), None) == []
    gap = measure_gap(statistics_of(0.2, 1.0, 2, 32))
    assert gap is not None
    assert gap.low is None
