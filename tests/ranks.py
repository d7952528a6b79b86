"""Ranks of a training, each for a process of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightwell.pipeline.errors import LightwellError
from lightwell.pipeline.jobs.job_file import load_job
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_training_job
from torch import distributed


class Deadly(SilentConsole):
    """Kills its process after some batches; never if the number is negative."""

    def __init__(self, stop_after: int) -> None:
        self.left = stop_after

    def track(self, batches: Iterable[Any], label: str) -> Iterator[Any]:
        for batch in batches:
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            yield batch


def train(job_file: Path, out: Path, stop_after: int) -> None:
    """Run a job, or its beginning."""
    torch.set_num_threads(1)
    job = load_job(job_file, default="classify")
    run_training_job(job, LocalEngine(num_threads=1), out, Deadly(stop_after))


def train_rank(job_file: Path, out: Path, meet: Path, rank: int, num_ranks: int, stop_after: int) -> None:
    """Run a job as one of several ranks, which find each other by a file."""
    distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=num_ranks)
    train(job_file, out, stop_after)
    distributed.destroy_process_group()


def write_refusal_of_rank(job_file: Path, out: Path, meet: Path, rank: int, num_ranks: int) -> None:
    """Write the error of a rank beside ``meet``."""
    try:
        train_rank(job_file, out, meet, rank, num_ranks, -1)
    except LightwellError as error:
        meet.with_name(f"refusal-{rank}").write_text(f"{type(error).__name__}: {error}")


def train_until_written(job_file: Path, out: Path, num_written: int) -> None:
    """Run a job in a process that kills itself before it replaces another file, after so many of them."""
    left, replace = [num_written], Path.replace

    def replacing(path: Path, target: Path) -> Path:
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return replace(path, target)

    Path.replace = replacing  # type: ignore[method-assign, assignment]
    train(job_file, out, -1)
