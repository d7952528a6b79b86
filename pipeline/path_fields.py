"""Marks fields of job files and plans that may hold a path in text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class PathText:
    """Annotation of a text field: where ``is_path`` holds, the value is a path that counts from the file's folder."""

    is_path: Callable[[str], bool]
