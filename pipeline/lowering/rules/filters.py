"""Blurs, sharpening and compression."""

from __future__ import annotations

from ..base import Lowering

LOWERINGS: tuple[Lowering, ...] = ()
