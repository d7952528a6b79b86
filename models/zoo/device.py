"""The torch device that a model runs on, by name."""

from __future__ import annotations

import torch

from ...pipeline.errors import ModelError


def torch_device(name: str) -> torch.device:
    """Return a torch device; ``auto`` is a GPU if available, else the CPU, and a GPU without a number is torch's current one.

    Raises:
        ModelError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ModelError(
            f"device: expected auto, cpu or cuda, got {name!r} ({reason}); choose one that this machine has"
        ) from error
    return torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else device
