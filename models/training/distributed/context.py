"""Rank, world size and collective operations of data-parallel training; no-ops for a single process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import distributed

from ....pipeline.errors import LightwellError
from ....pipeline.plan.view import View


@dataclass(frozen=True)
class DistributedContext:
    """Rank of this process, number of ranks, and collective operations."""

    rank: int = 0
    num_ranks: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Device of tensors in collective operations."""

    @classmethod
    def from_env(cls, device: torch.device) -> DistributedContext:
        """Read rank and world size from ``torch.distributed``; a single rank if it is not initialized."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls(device=device)
        return cls(distributed.get_rank(), distributed.get_world_size(), device)

    @property
    def is_main(self) -> bool:
        """True on rank 0, the only one that writes files."""
        return self.rank == 0

    def local_view(self, view: View) -> View:
        """Return this rank's slice of a view."""
        return replace(view, rank=self.rank, num_ranks=self.num_ranks)

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over all ranks; the result is on the tensor's device."""
        if self.num_ranks == 1:
            return tensor
        sent = tensor.detach().to(self.device, copy=True)
        distributed.all_reduce(sent)
        return sent.to(tensor.device)

    def agree(self, value: bool) -> bool:
        """Return the main rank's value, on every rank; waits for all of them."""
        return bool(self.all_reduce(torch.tensor(float(value and self.is_main))))

    def on_main(self, action: Callable[[], None]) -> None:
        """Run an action on the main rank while the others wait for it; a collective operation.

        Raises:
            LightwellError: that of the action, on every rank. After other errors the main rank's process has to end, which
                ends the wait of the others.
        """
        error: LightwellError | None = None
        if self.is_main:
            try:
                action()
            except LightwellError as raised:
                error = raised
        if self.num_ranks > 1:
            sent = [error]
            distributed.broadcast_object_list(sent, src=0, device=self.device)
            error = error or sent[0]
        if error is not None:
            raise error

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Concatenate the tensors of all ranks, which have equal shapes."""
        if self.num_ranks == 1:
            return tensor
        sent = tensor.detach().to(self.device).contiguous()
        parts = [torch.empty_like(sent) for _ in range(self.num_ranks)]
        distributed.all_gather(parts, sent)
        return torch.cat(parts).to(tensor.device)

    def broadcast(self, module: torch.nn.Module) -> None:
        """Broadcast the parameters and buffers of rank 0 to all ranks."""
        if self.num_ranks > 1:
            for tensor in module.state_dict().values():
                sent = tensor.to(self.device).contiguous()
                distributed.broadcast(sent, src=0)
                tensor.copy_(sent)

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.num_ranks > 1:
            distributed.barrier()

    def wrap_ddp(self, module: torch.nn.Module) -> torch.nn.Module:
        """Wrap a module in ``DistributedDataParallel``, which averages gradients over ranks.

        ``find_unused_parameters`` is on because auxiliary heads have unused parameters, and because the gradient buckets
        are then the same from the first step on: a resumed run adds gradients in the same order, bit for bit.
        """
        if self.num_ranks == 1:
            return module
        return torch.nn.parallel.DistributedDataParallel(
            module,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            find_unused_parameters=True,
        )
