"""Which sample stands where in which epoch: pure functions of integers. No epoch's order is ever laid out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from ..errors import PlanError
from ..rng import keyed_bits, keyed_generator
from .class_balanced import Draws
from .permutation import Permutation

if TYPE_CHECKING:
    from ..index.index import Index
    from ..plan.plan import Plan
    from ..plan.view import View

STRETCH = 16
"""Batches that are computed together where they are taken in order."""
NUM_REPLACEMENT_TRIES = 16
"""So many other samples are tried in place of a bad one before the batch is given up."""


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """Which rows of the index make one batch, or one rank's slice of it."""

    epoch: int
    step: int
    rows: np.ndarray
    """int64 row numbers of the index."""
    padding: np.ndarray
    """bool, like ``rows``: repeats that make the ranks of a last batch even."""
    lends: bool = False
    """The first row belongs to the slice before; it is made only so that the second can be mixed with it."""


class _Slice(NamedTuple):
    """Where a batch, or one rank's slice of it, lies in its epoch."""

    places: np.ndarray
    padding: np.ndarray
    lends: bool


def num_steps(num_rows: int, batch_size: int, *, drop_last: bool) -> int:
    """Count the batches of one epoch."""
    return num_rows // batch_size if drop_last else -(-num_rows // batch_size)


@dataclass(frozen=True)
class Schedule:
    """The batches of a view, each computed by its number."""

    rows: np.ndarray
    """int64 rows of the index, as many as an epoch has places."""
    batch_size: int
    """Of all ranks together."""
    seed: int = 0
    shuffle: bool = False
    first_epoch: int = 0
    num_epochs: int = 1
    drop_last: bool = False
    rank: int = 0
    num_ranks: int = 1
    draws: Draws | None = None
    mixes: bool = False
    """Images are mixed with the one before them in the batch, whichever rank has it."""

    @classmethod
    def of(cls, plan: Plan, view: View, index: Index, rows: np.ndarray) -> Self:
        """Build the schedule of some rows of an index.

        Raises:
            PlanError: ranks that cannot share the batch, an epoch without batches, or sampling that cannot be.
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
                f"errors.on_error: expected replace or raise where {view.num_ranks} ranks share a batch, got skip; ranks that "
                "leave images out would take different steps: write replace"
            )
        if len(rows) and num_steps(len(rows), size, drop_last=view.drop_last) == 0:
            raise PlanError(
                f"batch.size: expected at most {len(rows)} (the images of this split), got {size}; make it smaller"
            )
        draws = None
        if plan.sampling is not None and view.augment and view.keys is None:
            draws = Draws.of(plan.sampling, index, rows, plan.seed)
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
            draws,
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

    def place_of(self, number: int) -> tuple[int, int]:
        """Return epoch and step of a batch; of the first one after the view for ``num_batches``."""
        steps = max(1, self.num_steps)  # 0 where no image can be used
        return self.first_epoch + number // steps, number % steps

    def batch(self, number: int) -> BatchSpec:
        """Compute a batch, counted from 0 over all epochs."""
        epoch, step = self.place_of(number)
        return next(self._some(epoch, range(step, step + 1)))

    def _some(self, epoch: int, steps: range) -> Iterator[BatchSpec]:
        """Compute batches of one epoch, all their rows in one go: the arithmetic costs little more for many."""
        slices = [self._slice(step) for step in steps]
        rows = self.rows_at(np.concatenate([one.places for one in slices]), epoch)
        first = 0
        for step, one in zip(steps, slices, strict=True):
            last = first + len(one.places)
            yield BatchSpec(epoch, step, rows[first:last], one.padding, one.lends)
            first = last

    def _slice(self, step: int) -> _Slice:
        """Say which places of an epoch this rank's slice of a batch takes."""
        start = step * self.batch_size
        num_own = min(self.batch_size, len(self.rows) - start)
        num_here = -(-num_own // self.num_ranks)
        lends = self.mixes and self.num_ranks > 1 and num_own > 1
        slots = np.arange(self.rank * num_here - lends, (self.rank + 1) * num_here)
        return _Slice(start + slots % num_own, slots >= num_own, lends)

    def rows_at(self, places: np.ndarray, epoch: int) -> np.ndarray:
        """Say which rows of the index stand at places of an epoch; sampled epochs are always shuffled."""
        if self.shuffle or self.draws is not None:
            places = Permutation.keyed("shuffle", self.seed, epoch, len(self.rows))(places)
        return np.asarray(self.rows[places]) if self.draws is None else self.draws.rows_at(places, epoch)

    def batches(self, first: int = 0) -> Iterator[BatchSpec]:
        """Yield the batches from one on, in order."""
        while first < self.num_batches:
            stretch = self.stretch(first)
            yield from stretch.values()
            first += len(stretch)

    def stretch(self, first: int) -> dict[int, BatchSpec]:
        """Compute a batch and some that follow it in its epoch, by their numbers."""
        epoch, step = self.place_of(first)
        last = min(step + STRETCH, self.num_steps)
        return dict(enumerate(self._some(epoch, range(step, last)), first))


def replacements(rows: np.ndarray, *, seed: int, epoch: int, key: str) -> np.ndarray:
    """List the rows that may stand in for a bad sample, in the order in which they are tried.

    The order is keyed by (seed, epoch, key of the bad sample): the same bad file is replaced by the same
    picture whatever thread or engine meets it.
    """
    generator = keyed_generator(keyed_bits("replace", seed, epoch, key))
    return np.asarray(rows[generator.integers(0, len(rows), size=NUM_REPLACEMENT_TRIES)])
