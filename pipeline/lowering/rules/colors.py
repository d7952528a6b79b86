"""Colours that change together: hue, saturation, gray."""

from __future__ import annotations

from ..base import Lowering

LOWERINGS: tuple[Lowering, ...] = ()
