"""How far a training is, as its folder tells while it runs."""

from __future__ import annotations

import json
from pathlib import Path


def steps_done(out: Path, *, per_epoch: int) -> int:
    """Count the steps up to the last checkpoint; none where there is no checkpoint yet.

    Reads from one open file, as the checkpoint may be replaced meanwhile; ``safe_open`` opens a path twice.
    """
    try:
        with (out / "checkpoint.safetensors").open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    except FileNotFoundError:
        return 0
    position = json.loads(header["__metadata__"]["progress"])["position"]
    return int(position["epoch"] * per_epoch + position["step"])
