"""Values that change one by one: brightness, contrast, gamma, inversion, posterising, equalising."""

from __future__ import annotations

from ..base import Lowering

LOWERINGS: tuple[Lowering, ...] = ()
