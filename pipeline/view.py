"""Which samples of a plan are read, and how."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class View:
    """One reading of a plan: a split, in order or shuffled, augmented or not, for some epochs."""

    split: str | None = None
    """Only rows with this split; None reads all."""
    shuffle: bool = False
    augment: bool = False
    """Run the plan's ``augment`` policy and mixing."""
    first_epoch: int = 0
    num_epochs: int = 1
    drop_last: bool = False
    """Leave out the last batch of an epoch when it is not full."""
    keys: tuple[str, ...] | None = None
    """Only these keys, in this order; None reads all."""
