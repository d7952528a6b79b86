"""One run of one contestant, in a process of its own: ``python -m benchmarks.turn WORK TARGET MEASURE RESULT``."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from .contest import Work
from .pace import images_per_second


def run(work: Work, target: str, measure: str) -> float:
    """Run a contestant and return its value."""
    module, _, name = target.partition(":")
    contestant = getattr(importlib.import_module(f"benchmarks.contestants.{module}"), name)
    if measure == "value":
        return float(contestant(work))
    with closing(contestant(work)) as batches:
        return images_per_second(batches, work.seconds, work.output)


def main() -> None:
    """Run what the command line asks for; the value goes into the result file."""
    work_file, target, measure, result = sys.argv[1:]
    logging.basicConfig(level=logging.ERROR)
    plain: dict[str, Any] = json.loads(Path(work_file).read_text())
    value = run(Work(**{**plain, "photos": tuple(plain["photos"])}), target, measure)
    Path(result).write_text(json.dumps(value))
    sys.stdout.flush()
    os._exit(0)  # whatever a loader still has running must not keep the next turn waiting


if __name__ == "__main__":
    main()
