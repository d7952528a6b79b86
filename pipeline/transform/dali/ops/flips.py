"""Flips, transpositions, rotations by 90 degrees and shuffled tiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ....geometry import Size
from ...output_shapes import output_size
from ..lowering import EXACT, Argument, Device, Lowering, Node
from .common import RESIZED, SHAPE, no_arguments

_MAX_TILES = 64
"""Most inputs of DALI's ``multi_paste``."""

_SYMMETRY = Argument("symmetry", "float32", 2)
_FROM = Argument("from_yx", "int32", 2)
_TO = Argument("to_yx", "int32", 2)
_TILE = Argument("tile_hw", "int32", 2)


def _emit_nothing(_: Any, images: Node, __: tuple[Node, ...], ___: Device) -> Node:
    return images


def _emit_horizontal_flip(_: Any, images: Node, __: tuple[Node, ...], device: Device) -> Node:
    from nvidia.dali import fn

    return fn.flip(images, horizontal=1, vertical=0, device=device)


def _emit_vertical_flip(_: Any, images: Node, __: tuple[Node, ...], device: Device) -> Node:
    from nvidia.dali import fn

    return fn.flip(images, horizontal=0, vertical=1, device=device)


def _emit_transpose(_: Any, images: Node, __: tuple[Node, ...], device: Device) -> Node:
    from nvidia.dali import fn

    return fn.transpose(images, perm=[1, 0, 2], transpose_layout=False, device=device)


def _inverse_symmetry(element: str, size: Size) -> np.ndarray:
    """Return the inverse matrix of a symmetry of the square.

    Args:
        element: Albumentations' name; ``r90`` rotates counterclockwise as ``numpy.rot90`` does.
        size: input height and width.

    Returns:
        The 2x3 matrix from output (x, y) to input (x, y), with the origin at a corner.
    """
    height, width = size
    return np.array(
        {
            "e": [[1, 0, 0], [0, 1, 0]],
            "r90": [[0, -1, width], [1, 0, 0]],
            "r180": [[-1, 0, width], [0, -1, height]],
            "r270": [[0, 1, 0], [-1, 0, height]],
            "v": [[1, 0, 0], [0, -1, height]],
            "h": [[-1, 0, width], [0, 1, 0]],
            "t": [[0, 1, 0], [1, 0, 0]],
            "hvt": [[0, -1, width], [-1, 0, height]],
        }[element]
    )


def _square_arguments(transform: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    after = np.array(output_size(transform, params, size))
    return _inverse_symmetry(str(params["group_element"]), size), after


def _quarter_turn_arguments(transform: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    element = ("e", "r90", "r180", "r270")[params["factor"]]
    return _inverse_symmetry(element, size), np.array(output_size(transform, params, size))


def _emit_symmetry(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    # One operator for all eight symmetries: pixel centres map to pixel centres, halves are exact in float32.
    from nvidia.dali import fn, types

    matrix, size = nodes
    return fn.warp_affine(images, matrix=matrix, size=size, interp_type=types.INTERP_NN, device=device)


def _shuffle_arguments(_: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    tiles = np.asarray(params["tiles"], np.int32)
    starts, shapes = tiles[:, :2], tiles[:, 2:] - tiles[:, :2]
    return starts, starts[np.asarray(params["mapping"])], shapes, np.array(size)


def _emit_shuffle(transform: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    from nvidia.dali import fn

    begin, end, tile, shape = nodes
    copies = [images] * (transform.grid[0] * transform.grid[1])
    return fn.multi_paste(
        *copies, in_anchors=begin, out_anchors=end, shapes=tile, output_size=shape, device=device
    )


def _unsupported_shuffle(transform: Any) -> str:
    rows, columns = transform.grid
    return (
        f"DALI pastes at most {_MAX_TILES} tiles, not {rows}x{columns}" if rows * columns > _MAX_TILES else ""
    )


LOWERINGS: tuple[Lowering, ...] = (
    Lowering(("NoOp",), (), no_arguments, _emit_nothing, EXACT),
    Lowering(("HorizontalFlip", "TimeReverse"), (), no_arguments, _emit_horizontal_flip, EXACT),
    Lowering(("VerticalFlip",), (), no_arguments, _emit_vertical_flip, EXACT),
    Lowering(("Transpose",), (), no_arguments, _emit_transpose, EXACT),
    Lowering(("D4", "SquareSymmetry"), (_SYMMETRY, RESIZED), _square_arguments, _emit_symmetry, EXACT),
    Lowering(("RandomRotate90",), (_SYMMETRY, RESIZED), _quarter_turn_arguments, _emit_symmetry, EXACT),
    Lowering(
        ("RandomGridShuffle",),
        (_FROM, _TO, _TILE, SHAPE),
        _shuffle_arguments,
        _emit_shuffle,
        EXACT,
        unsupported=_unsupported_shuffle,
    ),
)
