"""Data-parallel training: rank of this process, and counts over all ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..pipeline.errors import PlanError
from ..pipeline.jobs.contracts import DataParallel

if TYPE_CHECKING:
    from ..pipeline.jobs.contracts import TrainingJob
    from ..pipeline.plan.view import View
    from .quarantine_log import QuarantineLog


@dataclass(frozen=True)
class RankInfo:
    """Rank of this process and number of ranks."""

    rank: int = 0
    num_ranks: int = 1

    @classmethod
    def from_env(cls) -> RankInfo:
        """Read them from ``torch.distributed``; rank 0 of 1 without a process group."""
        from torch import distributed

        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def is_main(self) -> bool:
        """Whether this is the first rank, the only one that writes."""
        return self.rank == 0

    def shard(self, view: View) -> View:
        """Return this rank's slice of a view."""
        return replace(view, rank=self.rank, num_ranks=self.num_ranks)

    def gather_counts(self, quarantine_log: QuarantineLog) -> dict[str, int]:
        """Write the quarantine list of all ranks on the first one; returns the total counts. A collective call."""
        if self.num_ranks > 1:
            from torch import distributed

            gathered: list[Any] = [None] * self.num_ranks
            distributed.all_gather_object(gathered, (quarantine_log.entries(), quarantine_log.counts()))
            if self.is_main:
                quarantine_log.add_entries(entry for entries, _ in gathered for entry in entries)
                quarantine_log.write()
            return sum_counts(counts for _, counts in gathered)
        quarantine_log.write()
        return quarantine_log.counts()


def sum_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sum counts by name."""
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)


def check_data_parallel(job: TrainingJob, num_ranks: int) -> None:
    """Check that a job supports a number of ranks.

    Raises:
        PlanError: it cannot share its batches, or not among so many ranks.
    """
    if isinstance(job, DataParallel):
        job.check_ranks(num_ranks)
    elif num_ranks > 1:
        raise PlanError(
            f"workers: expected 1 for {type(job).__name__}, got {num_ranks}; it has no `check_ranks` and would train a "
            "separate model on each: use --workers 1, or see `DataParallel` in pipeline/jobs/contracts.py"
        )
