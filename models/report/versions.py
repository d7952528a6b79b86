"""Versions of the packages that affect results."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "lightwell",
    "torch",
    "torchvision",
    "timm",
    "albumentations",
    "numpy",
    "nvidia-dali-cuda130",
)


def versions() -> dict[str, str]:
    """Return the versions of packages that affect results."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
