"""Samples as stored or decoded, at their own size: the items of stages that read files or images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class FileSample:
    """The bytes of one image file."""

    key: str
    data: bytes
    row: Mapping[str, Any]
    """The row of the index: ``format``, ``width``, ``label`` and so on."""


@dataclass(frozen=True, slots=True)
class ImageSample:
    """One decoded image."""

    key: str
    image: np.ndarray
    """uint8 RGB (height, width, 3), upright, of the size of the file."""
    row: Mapping[str, Any]
    """The row of the index: ``format``, ``width``, ``label`` and so on."""
    mask: bytes | None = None
    """Content of the mask file, if the row has one."""
