"""Let Albumentations draw a sample's decisions before there are pixels.

Albumentations draws and applies a transform in one call. Here its leaves are copied and their second half,
``apply_with_params``, is replaced by a recorder; a picture without pixels (a zero-stride array of the right
size) goes through the unchanged compositions. So OneOf, SomeOf, RandomOrder and whatever nests them consume from
the generators exactly what Albumentations itself would have consumed, and what runs after the drawn beginning
draws the same as it would without us.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .keys import keyed_generator, keyed_random
from .sizes import Size, size_after, why_unpredictable


@dataclass(frozen=True, slots=True)
class Decision:
    """One transform that a sample goes through, with what was drawn for it."""

    slot: int
    """Number of the transform among the policy's leaves, in the order in which they are written."""
    params: Mapping[str, Any]
    """What its ``apply`` methods take."""
    size: Size
    """Height and width of the picture that it is given."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn for one sample."""

    decisions: tuple[Decision, ...]
    size: Size
    """Height and width after the last decision."""
    generators: tuple[np.random.Generator, random.Random]
    """Where drawing stands: what is not drawn ahead goes on from here."""


def leaves_of(transforms: Sequence[Any]) -> Iterator[Any]:
    """Yield the transforms inside compositions, in the order in which they are written."""
    for transform in transforms:
        if hasattr(transform, "transforms"):
            yield from leaves_of(transform.transforms)
        else:
            yield transform


def num_predictable(transforms: Sequence[Any]) -> tuple[int, str]:
    """Count the leading transforms of a policy whose decisions need no pixels.

    Returns:
        The count, and why the next one cannot be drawn ahead; empty where all can.
    """
    for number, transform in enumerate(transforms):
        reason = why_unpredictable(transform)
        if reason:
            return number, reason
    return len(transforms), ""


class Drawing:
    """Draws the leading transforms of a policy. One thread at a time: it holds the drawing state.

    Args:
        compose: the policy as Albumentations runs it; copied.
        num_drawn: how many of its outermost transforms are drawn, from the first.
    """

    def __init__(self, compose: Any, num_drawn: int) -> None:
        self._compose = copy.deepcopy(compose)
        self._compose.transforms = self._compose.transforms[:num_drawn]
        self._decisions: list[Decision] = []
        for slot, leaf in enumerate(leaves_of(self._compose.transforms)):
            leaf.apply_with_params = self._recorder(slot, leaf)

    def draw(self, bits: int, size: Size, **targets: Any) -> Drawn:
        """Draw for one sample.

        Args:
            bits: the sample's key, see ``keys``.
            size: height and width of the decoded picture.
            targets: ``bboxes`` and what belongs to them, as the policy gets them; the drawing may look at them.
        """
        generators = keyed_generator(bits), keyed_random(bits)
        self._compose.set_random_state(*generators)
        self._decisions = []
        stand_in = self._compose(image=pixelless(size), **targets)["image"]
        height, width = stand_in.shape[:2]
        return Drawn(tuple(self._decisions), (height, width), generators)

    def _recorder(self, slot: int, leaf: Any) -> Any:
        def record(params: dict[str, Any], *_: Any, **data: Any) -> dict[str, Any]:
            height, width = data["image"].shape[:2]
            self._decisions.append(Decision(slot, params, (height, width)))
            return {**data, "image": pixelless(size_after(leaf, params, (height, width)))}

        return record


def pixelless(size: Size) -> np.ndarray:
    """Make an RGB picture of a size that takes one byte."""
    return np.broadcast_to(np.uint8(0), (*size, 3))
