"""The ranks of a run, and what they tell each other. Everything here is the identity for one process."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import distributed

from ....pipeline.plan.view import View


@dataclass(frozen=True)
class DistributedContext:
    """Which rank this process is, of how many."""

    rank: int = 0
    num_ranks: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where tensors have to lie to be sent."""

    @classmethod
    def from_env(cls, device: torch.device) -> DistributedContext:
        """Ask ``torch.distributed``; without a process group this process is alone."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls(device=device)
        return cls(distributed.get_rank(), distributed.get_world_size(), device)

    @property
    def is_main(self) -> bool:
        """The first rank is the only one that writes."""
        return self.rank == 0

    def local_view(self, view: View) -> View:
        """Return this rank's slice of a view."""
        return replace(view, rank=self.rank, num_ranks=self.num_ranks)

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add a tensor up over the ranks; all get the sum, where the tensor lies."""
        if self.num_ranks == 1:
            return tensor
        sent = tensor.detach().to(self.device, copy=True)
        distributed.all_reduce(sent)
        return sent.to(tensor.device)

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Put the tensors of all ranks, of equal shapes, behind each other."""
        if self.num_ranks == 1:
            return tensor
        sent = tensor.detach().to(self.device).contiguous()
        parts = [torch.empty_like(sent) for _ in range(self.num_ranks)]
        distributed.all_gather(parts, sent)
        return torch.cat(parts).to(tensor.device)

    def broadcast(self, module: torch.nn.Module) -> None:
        """Give all ranks the first one's weights and statistics."""
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
        """Let gradients be those of all ranks: ``DistributedDataParallel``, which takes their mean.

        Unused parameters are looked for, since auxiliary heads have them, and since gradients then lie in the same
        buckets from the first step on: a restarted run adds them in the same order, to the last bit.
        """
        if self.num_ranks == 1:
            return module
        return torch.nn.parallel.DistributedDataParallel(
            module,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            find_unused_parameters=True,
        )
