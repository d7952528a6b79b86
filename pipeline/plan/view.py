"""Which samples of a plan are read, and how."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.argument_checks import MAX_COUNT, check_count, check_flag, check_text
from ..errors import PlanError
from ..text import quoted


@dataclass(frozen=True, slots=True)
class View:
    """One reading of a plan: a split, in order or shuffled, augmented or not, for some epochs.

    Raises:
        PlanError: a rank that is none of the ``num_ranks``, or a value of another kind than its field's.
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
        check_text("view.split", self.split)
        for name in ("shuffle", "augment", "drop_last"):
            check_flag(f"view.{name}", getattr(self, name))
        for name, least in (
            ("first_epoch", 0),
            ("num_epochs", 0),
            ("rank", -MAX_COUNT),
            ("num_ranks", -MAX_COUNT),
        ):
            check_count(f"view.{name}", getattr(self, name), minimum=least)
        if self.keys is not None and not (
            isinstance(self.keys, tuple) and all(isinstance(key, str) for key in self.keys)
        ):
            raise PlanError(
                f"view.keys: expected a tuple of keys, got {quoted(self.keys)}; write keys=(KEY, ...)"
            )
        if self.num_ranks < 1 or not 0 <= self.rank < self.num_ranks:
            raise PlanError(
                f"view.rank: expected 0 to num_ranks - 1, got rank {self.rank} of {self.num_ranks} ranks; "
                "number them from 0"
            )
