"""State of the weight updates in a checkpoint, beside that of the optimizer: averages and the scale of the loss."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from ....pipeline.errors import ModelError
from ..checkpoint import STATE_PREFIX, read_tensors
from .ema import AveragedWeights

AVERAGE = "average."
SCALE, GROWTH = "scaler.scale", "scaler.growth_tracker"


def update_state(
    average: AveragedWeights | None, scaler: torch.amp.GradScaler | None
) -> dict[str, torch.Tensor]:
    """Return the tensors that a resumed run needs, by name."""
    state = {} if average is None else {f"{AVERAGE}{name}": value for name, value in average.state().items()}
    if scaler is not None:
        values = scaler.state_dict()
        state[SCALE] = torch.tensor(values["scale"], dtype=torch.float64)
        state[GROWTH] = torch.tensor(values["_growth_tracker"])
    return state


def load_update_state(
    path: Path, average: AveragedWeights | None, scaler: torch.amp.GradScaler | None
) -> None:
    """Restore averages and scale from a checkpoint.

    Raises:
        ModelError: the checkpoint lacks them, or a value is impossible.
    """
    if average is None and scaler is None:
        return
    state = {
        name.removeprefix(STATE_PREFIX): tensor
        for name, tensor in read_tensors(path).items()
        if name.startswith(STATE_PREFIX)
    }
    if average is not None:
        averages = {n.removeprefix(AVERAGE): t for n, t in state.items() if n.startswith(AVERAGE)}
        average.load(averages)
    if scaler is not None:
        scale, growth = (state.get(name, torch.tensor(math.nan)) for name in (SCALE, GROWTH))
        if (
            scale.numel() != 1
            or growth.numel() != 1
            or not (0 < float(scale) < math.inf)
            or not float(growth) >= 0
        ):
            raise ModelError(f"checkpoint: expected a scale of the loss above 0 in {path}, got none; "
                             "restore it from a copy, or delete it and train again")  # fmt: skip
        values = {**scaler.state_dict(), "scale": float(scale), "_growth_tracker": int(growth)}
        scaler.load_state_dict(values)
