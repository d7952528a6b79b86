"""A consumer in a process of its own, which writes down each batch that it has come back from; tests kill it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.testing import digest_batch
from lightwell.workers.service.engine import ServiceEngine


def main(plan: str, view: str, service: str, address: str, consumer: str, log: str, seconds: str) -> None:
    """Read as fast as one batch in so many seconds, from where this consumer was last heard of."""
    engine = ServiceEngine(service, address, consumer)
    with (
        Path(log).open("a") as out,
        engine.feed(Plan.load(plan), View(**json.loads(view)), engine.last_position()) as feed,
    ):
        for batch in feed:
            time.sleep(float(seconds))
            print(repr((batch.epoch, batch.step, digest_batch(batch))), file=out, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
