"""Processes that start at once: forked from a server that has imported what they need, and has no threads."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from patience import HANG_S

PRELOADED = [
    "albumentations", "cv2", "pyarrow.parquet", "timm", "torch", "torchvision", "lightwell.cli.app",
    "lightwell.models.training.job", "lightwell.models.zoo.build", "lightwell.pipeline.export.materialize",
    "lightwell.pipeline.runtime.local_engine", "lightwell.workers.local",
]  # fmt: skip
COMMAND = "from lightwell.cli import main; main()"
"""The program of the command line."""


@dataclass(frozen=True)
class Running:
    """A process that runs a program; what it prints goes into files."""

    process: ForkServerProcess
    out: Path
    err: Path

    def end(self, seconds: float = HANG_S) -> subprocess.CompletedProcess[str]:
        """Wait until it has ended."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still running after {seconds} s"
        printed = (path.read_text() for path in (self.out, self.err))
        return subprocess.CompletedProcess([], self.process.exitcode, *printed)


def server() -> ForkServerContext:
    """Return where to make processes; their targets are functions in modules of ``tests``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def start(target: Callable[..., None], *args: Any, is_quiet: bool = False) -> ForkServerProcess:
    """Call a function in a process of its own; ``is_quiet`` discards its errors."""
    process = server().Process(target=_call, args=(target, args, is_quiet))
    process.start()
    return process


def run(program: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a program as ``python -c`` does, to its end."""
    with running(program, *words) as started:
        return started.end()


@contextlib.contextmanager
def running(program: str, *words: object) -> Iterator[Running]:
    """Run a program as ``python -c`` does; it is killed if it has not ended."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder, name) for name in ("out", "err"))
        for path in (out, err):
            path.touch()
        process = server().Process(target=_execute, args=(program, list(map(str, words)), out, err))
        process.start()
        try:
            yield Running(process, out, err)
        finally:
            process.kill()
            process.join()


def _call(target: Callable[..., None], args: tuple[Any, ...], is_quiet: bool) -> None:
    if is_quiet:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    target(*args)


def _execute(program: str, words: list[str], out: Path, err: Path) -> None:
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    sys.argv = ["-c", *words]
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
