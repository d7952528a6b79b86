"""Names the batch that kills its worker process, such as one with an image that crashes a decoder."""

from __future__ import annotations

from ...pipeline.errors import WorkerDiedError
from ...pipeline.monitor.quarantine import NUM_NAMED
from ...pipeline.runtime.open_view import OpenView


def poison_error(opened: OpenView, number: int, num_deaths: int) -> WorkerDiedError:
    """Build the error for a batch that kills its worker process."""
    spec = opened.schedule.batch(number)
    keys = opened.index.table["key"].take(spec.rows).to_pylist()
    more = f" and {len(keys) - NUM_NAMED:,} more" if len(keys) > NUM_NAMED else ""
    return WorkerDiedError(
        f"epoch {spec.epoch}, step {spec.step}: expected this batch, got a worker process that died {num_deaths} times "
        f"while making it; one of its images ({', '.join(map(repr, keys[:NUM_NAMED]))}{more}) crashes a decoder or the "
        "job's code: remove it from the index"
    )


def poison_item_error(stage: str, number: int, num_deaths: int) -> WorkerDiedError:
    """Build the error for an item of a stage over records that kills its worker process."""
    return WorkerDiedError(
        f"stage {stage}, item {number}: expected its records, got a worker process that died {num_deaths} times while making "
        "them; check Ray's logs for the cause, such as out of memory or a crash in the job's code"
    )
