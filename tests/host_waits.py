"""Counts where the host waits for the results of a device, on a CPU as on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from lightwell.models.training.distributed.context import DistributedContext
from lightwell.models.training.evaluation import EpochMetrics
from lightwell.models.training.optimization.ema import AveragedWeights
from lightwell.models.training.optimization.loss_log import LossLog
from lightwell.models.training.optimization.options import EMA, UpdateOptions
from lightwell.models.training.step import TrainStep, UpdateGroup
from lightwell.models.training.tasks.classification import ClassificationMetrics, CrossEntropy
from lightwell.models.training.train_batch import TrainBatch
from torch import distributed, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

METHODS = {"item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__", "__array__"}
OPERATORS = {"_local_scalar_dense", "bincount", "equal", "is_nonzero", "masked_select", "nonzero", "unique"}
"""Their results, or the shapes of these, are needed by the host."""


class HostWaits:
    """Lists the calls within the context after which the host has to wait."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._modes = (_Methods(self.calls), _Operators(self.calls))

    def __enter__(self) -> list[str]:
        for mode in self._modes:
            mode.__enter__()
        return self.calls

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(kind, error, trace)


class _Methods(TorchFunctionMode):
    def __init__(self, calls: list[str]) -> None:
        super().__init__()
        self._calls = calls

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__name__", "") in METHODS:
            self._calls.append(func.__name__)
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self, calls: list[str]) -> None:
        super().__init__()
        self._calls = calls

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        is_mask = name == "index" and any(
            one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1]
        )
        if name in OPERATORS or is_mask:
            self._calls.append(name)
        return func(*args, **(kwargs or {}))


def waits_of_steps(dist: DistributedContext, num_steps: int) -> tuple[list[str], list[str]]:
    """Run deferred training steps with clipping, accumulation and an average; returns the waits of steps, and of a flush."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD([{"params": list(net.parameters()), "base_lr": 0.1}], lr=0.1, momentum=0.9)
    options = UpdateOptions(accumulate=2, clip_norm=1.0, ema=EMA())
    average = AveragedWeights(net, EMA())
    log = LossLog(is_deferred=True)
    step = TrainStep(
        net, optimizer, CrossEntropy(torch.tensor([1.0, 2.0]), 0.1), dist, options, average, log=log
    )
    running = EpochMetrics(ClassificationMetrics(2))
    rows = 4 if dist.rank == 0 else 3
    padding = torch.arange(4) >= rows if dist.num_ranks > 1 else None
    targets = (torch.arange(4) % 2).masked_fill(torch.arange(4) >= rows, -1)

    def run(number: int) -> None:
        batch = TrainBatch(
            torch.randn(4, 4), targets, torch.zeros(4, dtype=torch.bool), padding=padding, step=number
        )
        num_images = 7 if dist.num_ranks > 1 else 4
        step(batch, running, factor=1.0, group=UpdateGroup.of(0, number, 99, 2), num_images=num_images)

    for number in range(2):
        run(number)
    with HostWaits() as in_steps:
        for number in range(2, 2 + num_steps):
            run(number)
    with HostWaits() as in_flush:
        step.flush(running)
    return in_steps, in_flush


def write_waits_of_rank(out: Path, meet: Path, rank: int, num_ranks: int) -> None:
    """Run steps as one of several ranks, and write the waits of its Python code."""
    distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=num_ranks)
    torch.set_num_threads(1)
    in_steps, in_flush = waits_of_steps(DistributedContext(rank, num_ranks), 6)
    in_ours = sorted(
        {*in_steps} - {"_local_scalar_dense"}
    )  # DistributedDataParallel reads a map that is on the CPU
    (out / f"{rank}.txt").write_text(f"{in_ours}, then {in_flush[0]}")
    distributed.destroy_process_group()
