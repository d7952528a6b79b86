"""Processes that start at once: forked from a server that has imported what they need, and has no threads."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

PRELOADED = [
    "albumentations", "cv2", "pyarrow.parquet", "timm", "torch", "torchvision", "lightwell.cli.app",
    "lightwell.models.training.job", "lightwell.models.zoo.build", "lightwell.pipeline.export.materialize",
    "lightwell.pipeline.runtime.local_engine", "lightwell.workers.local",
]  # fmt: skip


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


def _call(target: Callable[..., None], args: tuple[Any, ...], is_quiet: bool) -> None:
    if is_quiet:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    target(*args)
