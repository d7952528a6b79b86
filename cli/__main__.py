"""Entry point of ``python -m lightwell.cli``."""

from __future__ import annotations

from .app import main

main()
