"""How far a training is, as its folder tells while it runs."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open


def steps_done(out: Path, *, per_epoch: int) -> int:
    """Count the steps up to the last checkpoint; none where there is no checkpoint yet."""
    try:
        with safe_open(out / "checkpoint.safetensors", framework="pt") as file:
            position = json.loads(file.metadata()["progress"])["position"]
    except FileNotFoundError:
        return 0
    return int(position["epoch"] * per_epoch + position["step"])
