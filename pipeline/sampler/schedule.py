"""Batch schedule: the rows of every batch, computed from its number. The order of an epoch is never materialized."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from ..errors import PlanError
from ..rng import derive_seed, numpy_generator
from .class_balanced import ClassBalancedSampler
from .permutation import Permutation

if TYPE_CHECKING:
    from ..index.index import Index
    from ..plan.plan import Plan
    from ..plan.view import View

LOOKAHEAD = 16
"""Batches that are computed together when they are read in order."""
NUM_REPLACEMENT_TRIES = 16
"""Other samples that are tried in place of a bad one before the batch fails."""


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """Rows of the index for one batch, or for one rank's slice of it."""

    epoch: int
    step: int
    rows: np.ndarray
    """int64 row numbers of the index."""
    padding: np.ndarray
    """bool, like ``rows``: repeated rows that give all ranks slices of equal length in a last batch."""
    has_halo: bool = False
    """Whether the first row belongs to the previous rank's slice and is needed only for mixing with the second."""


class _Slice(NamedTuple):
    """Indices of a batch, or of one rank's slice of it, within its epoch."""

    indices: np.ndarray
    padding: np.ndarray
    has_halo: bool


def num_steps(num_rows: int, batch_size: int, *, drop_last: bool) -> int:
    """Return the number of batches in one epoch."""
    return num_rows // batch_size if drop_last else -(-num_rows // batch_size)


@dataclass(frozen=True)
class Schedule:
    """Batches of a view, each computed from its number."""

    rows: np.ndarray
    """int64 rows of the index; an epoch has as many samples."""
    batch_size: int
    """Global batch size, over all ranks."""
    seed: int = 0
    shuffle: bool = False
    first_epoch: int = 0
    num_epochs: int = 1
    drop_last: bool = False
    rank: int = 0
    num_ranks: int = 1
    class_balanced: ClassBalancedSampler | None = None
    mixes: bool = False
    """Whether each image is mixed with the previous one of the global batch, on whichever rank that is."""

    @classmethod
    def of(cls, plan: Plan, view: View, index: Index, rows: np.ndarray) -> Self:
        """Build the schedule for some rows of an index.

        Raises:
            PlanError: the ranks cannot share the batch, an epoch has no batches, or the sampling is impossible.
        """
        size = plan.batch.size
        if size % view.num_ranks:
            below = size - size % view.num_ranks
            raise PlanError(
                f"batch.size: expected a multiple of the {view.num_ranks} ranks that share a batch, got {size}; "
                f"make it {' or '.join(str(fit) for fit in (below, below + view.num_ranks) if fit)}"
            )
        if view.num_ranks > 1 and plan.errors.on_error == "skip":
            raise PlanError(
                f"errors.on_error: expected replace or raise with {view.num_ranks} ranks, got skip; ranks that leave images "
                "out would take different numbers of steps: write replace"
            )
        if len(rows) and num_steps(len(rows), size, drop_last=view.drop_last) == 0:
            raise PlanError(
                f"batch.size: expected at most {len(rows)} (the images of this split), got {size}; make it smaller"
            )
        class_balanced = None
        if plan.sampling is not None and view.augment and view.keys is None:
            class_balanced = ClassBalancedSampler.of(plan.sampling, index, rows, plan.seed)
        return cls(
            rows,
            size,
            plan.seed,
            view.shuffle,
            view.first_epoch,
            view.num_epochs,
            view.drop_last,
            view.rank,
            view.num_ranks,
            class_balanced,
            mixes=view.augment and plan.mix is not None,
        )

    @property
    def num_steps(self) -> int:
        """Batches of one epoch, on every rank."""
        return num_steps(len(self.rows), self.batch_size, drop_last=self.drop_last)

    @property
    def num_batches(self) -> int:
        """Batches of all epochs together."""
        return self.num_steps * self.num_epochs

    def epoch_and_step(self, number: int) -> tuple[int, int]:
        """Return epoch and step of a batch; for ``num_batches``, those of the first batch after the view."""
        steps = max(1, self.num_steps)  # 0 if no image can be used
        return self.first_epoch + number // steps, number % steps

    def batch(self, number: int) -> BatchSpec:
        """Compute a batch by its number, counted from 0 over all epochs."""
        epoch, step = self.epoch_and_step(number)
        return next(self._compute(epoch, range(step, step + 1)))

    def _compute(self, epoch: int, steps: range) -> Iterator[BatchSpec]:
        """Compute batches of one epoch together, which costs little more than a single one."""
        slices = [self._slice(step) for step in steps]
        rows = self.rows_at(np.concatenate([one.indices for one in slices]), epoch)
        first = 0
        for step, one in zip(steps, slices, strict=True):
            last = first + len(one.indices)
            yield BatchSpec(epoch, step, rows[first:last], one.padding, one.has_halo)
            first = last

    def _slice(self, step: int) -> _Slice:
        """Return the indices of this rank's slice of a batch."""
        start = step * self.batch_size
        num_valid = min(self.batch_size, len(self.rows) - start)
        num_per_rank = -(-num_valid // self.num_ranks)
        has_halo = self.mixes and self.num_ranks > 1 and num_valid > 1
        slots = np.arange(self.rank * num_per_rank - has_halo, (self.rank + 1) * num_per_rank)
        return _Slice(start + slots % num_valid, slots >= num_valid, has_halo)

    def rows_at(self, indices: np.ndarray, epoch: int) -> np.ndarray:
        """Return the rows of the index at some indices of an epoch; class-balanced epochs are always shuffled."""
        if self.shuffle or self.class_balanced is not None:
            indices = Permutation.from_seed("shuffle", self.seed, epoch, len(self.rows))(indices)
        return (
            np.asarray(self.rows[indices])
            if self.class_balanced is None
            else self.class_balanced.rows_at(indices, epoch)
        )

    def batches(self, first: int = 0) -> Iterator[BatchSpec]:
        """Yield the batches from a number on, in order."""
        while first < self.num_batches:
            batches = self.batches_from(first)
            yield from batches.values()
            first += len(batches)

    def batches_from(self, first: int) -> dict[int, BatchSpec]:
        """Compute up to ``LOOKAHEAD`` batches of one epoch, starting with a number; returns them by number."""
        epoch, step = self.epoch_and_step(first)
        last = min(step + LOOKAHEAD, self.num_steps)
        return dict(enumerate(self._compute(epoch, range(step, last)), first))


def replacements(rows: np.ndarray, *, seed: int, epoch: int, key: str) -> np.ndarray:
    """Return the rows that may replace a bad sample, in the order in which they are tried.

    The order is keyed by (seed, epoch, key of the bad sample): the same bad file is replaced by the same
    image on every thread and engine.
    """
    generator = numpy_generator(derive_seed("replace", seed, epoch, key))
    return np.asarray(rows[generator.integers(0, len(rows), size=NUM_REPLACEMENT_TRIES)])
