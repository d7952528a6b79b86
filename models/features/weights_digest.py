"""Digest of a network that computes features, for the keys of the feature cache."""

from __future__ import annotations

import hashlib

import torch


def weights_digest(structure: str, module: torch.nn.Module) -> str:
    """Hash everything that determines the output of a module in eval mode.

    Args:
        structure: layers and operations, as text.
        module: its weights are hashed with their names, types and shapes; numbers of batches that BatchNorm has counted are not.
    """
    hashed = hashlib.sha256(structure.encode())
    for name, tensor in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            hashed.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()[:32]
