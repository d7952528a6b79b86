"""Parts of a picture that are dropped."""

from __future__ import annotations

from ..base import Lowering

LOWERINGS: tuple[Lowering, ...] = ()
