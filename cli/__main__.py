"""Runs the command line: ``python -m lightwell.cli``."""

from __future__ import annotations

from .app import main

main()
