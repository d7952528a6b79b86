"""Command line: one module per command or group of commands, without logic of its own."""

from __future__ import annotations

from .app import main

__all__ = ["main"]
