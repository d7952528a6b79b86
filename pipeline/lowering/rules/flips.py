"""Flips, transpositions and quarter turns: pixels move and keep their values."""

from __future__ import annotations

from typing import Any

from ..base import EXACT, Device, Lowering, Node
from .nodes import no_arguments


def _emit_horizontal_flip(_: Any, images: Node, __: tuple[Node, ...], device: Device) -> Node:
    from nvidia.dali import fn

    return fn.flip(images, horizontal=1, vertical=0, device=device)


LOWERINGS: tuple[Lowering, ...] = (
    Lowering(("HorizontalFlip",), (), no_arguments, _emit_horizontal_flip, EXACT),
)
