"""Facts about a run that its results do not show: command, versions and machine."""

from __future__ import annotations

import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from ...pipeline.machine import num_cpus
from ...pipeline.uris import redact_uris
from .versions import versions

RUN_NAME = "run.json"


def run_facts() -> dict[str, Any]:
    """Return the command, without secrets in URIs, the versions and the machine; no names of hosts or users."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else ""
    return {
        "command": redact_uris(command),
        "versions": versions(),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cpus": num_cpus(),
            "gpus": _gpus(),
        },
    }


def _gpus() -> list[str]:
    """Return the names of the GPUs that torch can use."""
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
