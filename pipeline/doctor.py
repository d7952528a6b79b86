"""What this machine has: versions, cores, decoders and whether they agree on a picture made here."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

PACKAGES = (
    "lightwell",
    "albumentations",
    "opencv-python-headless",
    "nvidia-dali-cuda130",
    "torch",
    "torchvision",
    "timm",
    "ray",
    "pyarrow",
)


def examine() -> dict[str, Any]:
    """Look at the machine and decode one picture with each decoder.

    Returns:
        ``python``, ``cores``, ``versions``, ``gpu`` (a name or None) and ``decoders``: for each one ``ok``, or why not,
        with the largest difference from OpenCV's pixels.
    """
    import torch

    versions: dict[str, str] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "versions": versions,
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "decoders": _try_decoders(),
    }


def _try_decoders() -> dict[str, str]:
    import cv2
    import numpy as np

    from .decode.dali import DaliDecoder
    from .decode.opencv import decode_opencv
    from .decode.pillow import decode_pillow
    from .decode.plan import whole

    ramp = np.linspace(0, 255, 96, dtype=np.uint8)
    picture = np.stack(
        [np.tile(ramp, (64, 1)), np.tile(ramp[::-1], (64, 1)), np.full((64, 96), 128, np.uint8)], axis=2
    )
    data = cv2.imencode(".jpg", picture)[1].tobytes()
    reference = decode_opencv(data).astype(int)
    found: dict[str, str] = {"opencv": "ok"}
    found["pillow"] = f"ok, differs by at most {np.abs(decode_pillow(data) - reference).max()} of 255"
    dali = DaliDecoder(max_batch_size=1, num_threads=1)
    try:
        (decoded,) = dali.decode([data], [whole((64, 96))])
    except ImportError as error:
        found["dali cpu"] = f"not usable: {error}"
        return found
    dali.close()
    found["dali cpu"] = (
        f"failed: {decoded}"
        if isinstance(decoded, str)
        else f"ok, differs by at most {np.abs(decoded - reference).max()} of 255"
    )
    return found
