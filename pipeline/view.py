"""Which samples of a plan are read, and how."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import PlanError


@dataclass(frozen=True, slots=True)
class View:
    """One reading of a plan: a split, in order or shuffled, augmented or not, for some epochs.

    Raises:
        PlanError: a rank that is none of the ``num_ranks``.
    """

    split: str | None = None
    """Only rows with this split; None reads all."""
    shuffle: bool = False
    augment: bool = False
    """A training view: run the plan's ``augment`` policy, its sampling and its mixing."""
    first_epoch: int = 0
    num_epochs: int = 1
    drop_last: bool = False
    """Leave out the last batch of an epoch when it is not full."""
    keys: tuple[str, ...] | None = None
    """Only these keys, in this order; None reads all. The plan's sampling is for views without keys."""
    rank: int = 0
    """Which slice of every batch is read, from 0."""
    num_ranks: int = 1
    """Processes that share every batch; all take the same number of steps."""

    def __post_init__(self) -> None:
        if self.num_ranks < 1 or not 0 <= self.rank < self.num_ranks:
            raise PlanError(
                f"view.rank: wanted 0 to num_ranks - 1, got rank {self.rank} of {self.num_ranks} ranks; "
                "number them from 0"
            )
