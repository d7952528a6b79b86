"""How long tests wait for what has to happen: only something that hangs takes as long, however busy the machine is."""

from __future__ import annotations

HANG_S = 120.0
"""Seconds. What is to happen at once takes a hundredth of it; what waits for a peer that never answers takes longer."""
