"""Plans with a cache, and what comes of running them."""

from __future__ import annotations

import hashlib
import logging
import queue
import resource
from collections.abc import Iterable
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import albumentations as A
from lightwell.pipeline.batch.batch import Batch
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.testing import digest_batch

TRAINING = View(shuffle=True, augment=True, num_epochs=2)
PREPROCESS = [A.SmallestMaxSize(64)]
AUGMENT = [A.RandomResizedCrop((48, 48)), A.HorizontalFlip(), A.GaussNoise(p=0.5), A.CoarseDropout(p=0.5)]


def plan_for(index_path: Path, **changes: Any) -> Plan:
    plan = {
        "index": index_path,
        "preprocess": PREPROCESS,
        "augment": AUGMENT,
        "batch": {"size": 5},
        "seed": 3,
    }
    return Plan.model_validate({**plan, **changes})


def hashes_of(feed: Iterable[Batch]) -> list[str]:
    """Hash every batch with all that it holds."""
    return [
        hashlib.sha256(
            repr(digest_batch(batch)).encode() + repr(batch.replaced.tolist()).encode()
        ).hexdigest()
        for batch in feed
    ]


def run(plan: Plan, view: View = TRAINING, **engine: Any) -> tuple[list[str], dict[str, int]]:
    """Run a plan; return the hashes of its batches and the cache's counts."""
    with LocalEngine(**{"num_threads": 2, **engine}).feed(plan, view) as feed:
        return hashes_of(feed), feed.cache_counts


def run_and_tell(plan: Plan, results: Connection, most_file_bytes: int | None = None) -> None:
    """Run a plan in a process of its own; sends hashes, counts and warnings."""
    if most_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_file_bytes, most_file_bytes))
    log, told = logging.getLogger("lightwell"), queue.SimpleQueue[logging.LogRecord]()
    log.addHandler(QueueHandler(told))
    results.send("ready")
    hashes, counts = run(plan)
    results.send((hashes, counts, [told.get().getMessage() for _ in range(told.qsize())]))


def shards_of(folder: Path) -> list[Path]:
    """List the shards of all recipes."""
    return sorted(folder.glob("*/*.arrow"))
