"""Batch statistics and dropout masks of the global batch, although each rank holds a slice of it.

Batch normalisation in training mode uses the statistics of the rows of all ranks, without padding. Dropout and stochastic
depth draw masks for all rows, and each rank takes its rows: with generators in the same state on all ranks, the masks
equal those of a single process. Other random numbers, such as dropout inside fused attention, are drawn per rank and
differ from those of a single process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .batchnorm import GlobalBatchNorm
from .context import DistributedContext

DROPOUT_FUNCTIONS = (
    functional.dropout,
    functional.dropout1d,
    functional.dropout2d,
    functional.dropout3d,
    functional.alpha_dropout,
    functional.feature_alpha_dropout,
)
BATCH_NORM_FUNCTIONS = (functional.batch_norm, torch.batch_norm)
BERNOULLI_FUNCTIONS = (torch.Tensor.bernoulli_,)


@dataclass(frozen=True)
class BatchSlice:
    """Rows of the global batch that a rank holds."""

    num_rows: int
    """Rows of this rank, including padding."""
    first: int
    """Index of its first row in the global batch."""
    num_global: int
    """Rows of the global batch, without padding."""

    @property
    def num_valid(self) -> int:
        """Rows of this rank without padding, which is at the end."""
        return max(0, min(self.num_rows, self.num_global - self.first))


def global_batch(
    dist: DistributedContext, num_rows: int, num_global: int, *, norm: bool = True
) -> AbstractContextManager[Any]:
    """Run a forward pass with batch statistics and dropout masks of the global batch; ranks pass equally many rows.

    Args:
        dist: a single rank needs no context.
        num_rows: rows of this rank, including padding.
        num_global: rows of all ranks, without padding.
        norm: whether batch normalisation uses the global batch; False leaves it as it is.
    """
    if dist.num_ranks == 1:
        return nullcontext()
    return GlobalBatch(dist, BatchSlice(num_rows, dist.rank * num_rows, num_global), norm=norm)


class GlobalBatch(TorchFunctionMode):
    """Overrides torch functions that depend on other rows or draw random numbers per row, within the context."""

    def __init__(self, dist: DistributedContext, rows: BatchSlice, *, norm: bool = True) -> None:
        super().__init__()
        self._has_norm = norm
        self._dist = dist
        self._rows = rows

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Dispatch a torch function."""
        kwargs = kwargs or {}
        if (
            self._has_norm
            and func in BATCH_NORM_FUNCTIONS
            and (normed := self._norm(*args, **kwargs)) is not None
        ):
            return normed
        if func in DROPOUT_FUNCTIONS:
            return self._drop(func, *args, **kwargs)
        if func in BERNOULLI_FUNCTIONS:
            return self._draw(*args, **kwargs)
        return func(*args, **kwargs)

    def _norm(
        self,
        inputs: torch.Tensor,
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> torch.Tensor | None:
        """Normalise by the statistics of all ranks; None if batch statistics are not used."""
        if not training or len(inputs) != self._rows.num_rows:
            return None
        normed: tuple[torch.Tensor, ...] = GlobalBatchNorm.apply(
            inputs, weight, bias, eps, self._rows.num_valid, self._dist
        )
        out, mean, var, count = normed
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                running_var.lerp_((var * count / (count - 1)).to(running_var.dtype), momentum)
        return out

    def _drop(
        self,
        func: Callable[..., torch.Tensor],
        inputs: torch.Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,  # noqa: ARG002
    ) -> torch.Tensor:
        repeats, remainder = divmod(len(inputs), self._rows.num_rows)
        if not training or p == 0 or remainder:
            return func(inputs, p, training)
        first, num_valid, num_total = (
            repeats * number for number in (self._rows.first, self._rows.num_valid, self._rows.num_global)
        )
        before = inputs.new_zeros((min(first, num_total), *inputs.shape[1:]))
        after = inputs.new_zeros((num_total - len(before) - num_valid, *inputs.shape[1:]))
        layout = memory_format_of(inputs)
        rows = torch.cat([before, inputs[:num_valid], after]).contiguous(memory_format=layout)
        full = func(rows, p, training)
        mine = torch.cat([full[len(before) : len(before) + num_valid], inputs[num_valid:]])
        return mine.contiguous(memory_format=layout)

    def _draw(self, tensor: torch.Tensor, p: Any = 0.5, **options: Any) -> torch.Tensor:
        """Draw a mask with one row per row of the batch, as stochastic depth does."""
        repeats, remainder = divmod(len(tensor) if tensor.dim() else 0, self._rows.num_rows)
        if remainder or not repeats or isinstance(p, torch.Tensor):
            return tensor.bernoulli_(p, **options)
        first, num_valid, num_total = (
            repeats * number for number in (self._rows.first, self._rows.num_valid, self._rows.num_global)
        )
        rows = tensor.new_empty((num_total, *tensor.shape[1:]))
        full = rows.contiguous(memory_format=memory_format_of(tensor)).bernoulli_(p, **options)
        with torch.no_grad():
            tensor[:num_valid] = full[first : first + num_valid]
            tensor[num_valid:] = 1
        return tensor


def memory_format_of(tensor: torch.Tensor) -> torch.memory_format:
    """Return the memory format of a tensor, in whose order random numbers are drawn."""
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last and not tensor.is_contiguous() else torch.contiguous_format
