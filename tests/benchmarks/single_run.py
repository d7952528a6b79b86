"""Run one contestant once, in its own process: ``python -m benchmarks.single_run WORK TARGET MEASURE RESULT``."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from .benchmark import Work
from .throughput import images_per_second


def run(work: Work, target: str, measure: str) -> float:
    """Run a contestant and return its value."""
    module, _, name = target.partition(":")
    contestant = getattr(importlib.import_module(f"benchmarks.contestants.{module}"), name)
    if measure == "value":
        return float(contestant(work))
    with closing(contestant(work)) as batches:
        return images_per_second(batches, work.seconds, work.output)


def main() -> None:
    """Run the contestant named on the command line and write its value to the result file."""
    work_file, target, measure, result = sys.argv[1:]
    logging.basicConfig(level=logging.ERROR)
    plain: dict[str, Any] = json.loads(Path(work_file).read_text())
    value = run(Work(**{**plain, "photos": tuple(plain["photos"])}), target, measure)
    Path(result).write_text(json.dumps(value))
    sys.stdout.flush()
    os._exit(0)  # do not wait for processes or threads of the loader


if __name__ == "__main__":
    main()
