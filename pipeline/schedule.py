"""Which sample stands where in which epoch: pure functions of integers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .keys import keyed_bits, keyed_generator

NUM_REPLACEMENT_TRIES = 16
"""So many other samples are tried in place of a bad one before the batch is given up."""


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """Which rows of the index make one batch."""

    epoch: int
    step: int
    rows: np.ndarray
    """int64 row numbers of the index."""


def epoch_order(rows: np.ndarray, *, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """Order the rows of one epoch: as they are, or by a permutation keyed by (seed, epoch)."""
    if not shuffle:
        return rows
    order = keyed_generator(keyed_bits("shuffle", seed, epoch, "")).permutation(len(rows))
    return np.asarray(rows[order])


def num_steps(num_rows: int, batch_size: int, *, drop_last: bool) -> int:
    """Count the batches of one epoch."""
    return num_rows // batch_size if drop_last else -(-num_rows // batch_size)


def batch_specs(
    rows: np.ndarray, *, batch_size: int, seed: int, epochs: range, shuffle: bool, drop_last: bool
) -> Iterator[BatchSpec]:
    """Yield the batches of some epochs in order."""
    for epoch in epochs:
        order = epoch_order(rows, seed=seed, epoch=epoch, shuffle=shuffle)
        for step in range(num_steps(len(rows), batch_size, drop_last=drop_last)):
            yield BatchSpec(epoch, step, order[step * batch_size : (step + 1) * batch_size])


def replacements(rows: np.ndarray, *, seed: int, epoch: int, key: str) -> np.ndarray:
    """List the rows that may stand in for a bad sample, in the order in which they are tried.

    The order is keyed by (seed, epoch, key of the bad sample): the same bad file is replaced by the same
    picture whatever thread or engine meets it.
    """
    generator = keyed_generator(keyed_bits("replace", seed, epoch, key))
    return np.asarray(rows[generator.integers(0, len(rows), size=NUM_REPLACEMENT_TRIES)])
