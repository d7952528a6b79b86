"""View: which samples of a plan are read, and in which mode."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.argument_checks import MAX_COUNT, check_count, check_flag, check_text
from ..errors import PlanError
from ..text import quoted


@dataclass(frozen=True, slots=True)
class View:
    """A pass over a plan: split, order, augmentation, epochs and rank.

    Raises:
        PlanError: ``rank`` is out of range, or a value has the wrong type.
    """

    split: str | None = None
    """Read this split only (default: all rows)."""
    shuffle: bool = False
    augment: bool = False
    """Training view: apply the plan's ``augment`` policy, sampling and mixing."""
    first_epoch: int = 0
    num_epochs: int = 1
    drop_last: bool = False
    """Drop the last batch of an epoch if it is incomplete."""
    keys: tuple[str, ...] | None = None
    """Read these keys only, in this order (default: all). Not combined with the plan's sampling."""
    rank: int = 0
    """Rank of this process, from 0; each rank reads its slice of every batch."""
    num_ranks: int = 1
    """World size: processes that share every batch and take the same number of steps."""

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
                "ranks are numbered from 0"
            )
