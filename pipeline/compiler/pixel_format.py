"""Pixel format of a policy's output: bytes or floats and number of channels, the same for all images of a view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import PlanError
from ..policy.registry import is_composition


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """Type and number of channels of an image's pixels."""

    is_float: bool = False
    channels: int = 3

    def __str__(self) -> str:
        return (
            f"{'floats' if self.is_float else 'bytes'} of {self.channels} channel{'s' * (self.channels != 1)}"
        )


DECODED = PixelFormat()
PixelFormats = frozenset[PixelFormat]

_CHAINS = frozenset({"Compose", "Sequential"})
_CHOICES = frozenset({"OneOf", "OneOrOther"})


class _UnknownFormatError(Exception):
    """The policy has a custom transform class, whose output is checked only when batches are built."""


def output_pixel_format(transforms: Sequence[Any], where: str) -> PixelFormat | None:
    """Infer the pixel format after some transforms.

    Args:
        transforms: of one view, in order.
        where: name of the view's policy, for errors.

    Returns:
        The format of all output images; None if it depends on a custom transform class.

    Raises:
        PlanError: the format depends on random parameters, or a transform does not support its input format.
    """
    formats: PixelFormats = frozenset({DECODED})
    decided_by = ""
    try:
        for transform in transforms:
            after = _after(transform, formats, where, forced=False)
            if len(after) > len(formats):
                decided_by = type(transform).__name__
            formats = after
    except _UnknownFormatError:
        return None
    if len(formats) > 1:
        raise PlanError(
            f"{where}.{decided_by}: expected one pixel format in every batch, got "
            f"{' or '.join(sorted(map(str, formats)))} at random; write p: 1.0, or move it out of the random choice"
        )
    return next(iter(formats))


def _after(transform: Any, before: PixelFormats, where: str, *, forced: bool) -> PixelFormats:
    """Return the possible output formats of a transform; ``forced`` ignores its probability, as OneOf does."""
    name = type(transform).__name__
    where = f"{where}.{name}"
    if not type(transform).__module__.startswith("albumentations."):
        raise _UnknownFormatError
    if not is_composition(transform):
        after = frozenset(_after_leaf(transform, name, pixel_format, where) for pixel_format in before)
        return after | (before if transform.p < 1 and not forced else frozenset())
    children = transform.transforms
    if name in _CHAINS:
        after = before
        for child in children:
            after = _after(child, after, where, forced=False)
    elif name in _CHOICES:
        after = frozenset().union(*(_after(child, before, where, forced=True) for child in children))
    elif name == "SelectiveChannelTransform":
        after = _after_channels(transform, before, where)
    else:  # SomeOf and RandomOrder apply n of them, one after the other
        after = before
        for _ in range(transform.n if children else 0):
            following = frozenset().union(*(_after(child, after, where, forced=False) for child in children))
            if following == after:
                break
            after = following
    skipped = name != "OneOrOther" and transform.p < 1 and not (forced and name in _CHAINS)
    return after | (before if skipped or not children else frozenset())


def _after_channels(transform: Any, before: PixelFormats, where: str) -> PixelFormats:
    for pixel_format in before:
        part = frozenset({replace(pixel_format, channels=len(transform.channels))})
        after = part
        for child in transform.transforms:
            after = _after(child, after, where, forced=False)
        if after != part:
            raise PlanError(
                f"{where}: expected transforms that keep {next(iter(part))}, got some that yield "
                f"{' or '.join(sorted(map(str, after)))}, which would be written back into the image; remove them"
            )
    return before


def _to_tensor(_: Any, __: PixelFormat, where: str) -> PixelFormat:
    raise PlanError(
        f"{where}: expected only at the end of a policy, got it elsewhere; remove it, as batches are "
        "tensors anyway"
    )


def _to_floats(_: Any, pixel_format: PixelFormat, __: str) -> PixelFormat:
    return replace(pixel_format, is_float=True)


def _from_float(transform: Any, pixel_format: PixelFormat, where: str) -> PixelFormat:
    if not pixel_format.is_float:
        raise PlanError(
            f"{where}: expected floats before it, got {pixel_format}; put ToFloat or Normalize before it, or remove it"
        )
    return replace(pixel_format, is_float=str(transform.dtype) != "uint8")


def _to_gray(transform: Any, pixel_format: PixelFormat, _: str) -> PixelFormat:
    return (
        pixel_format
        if pixel_format.channels == 1
        else replace(pixel_format, channels=int(transform.num_output_channels))
    )


def _to_rgb(_: Any, pixel_format: PixelFormat, __: str) -> PixelFormat:
    return replace(pixel_format, channels=3)


_CHANGES: dict[str, Callable[[Any, PixelFormat, str], PixelFormat]] = {
    "FromFloat": _from_float,
    "Normalize": _to_floats,
    "ToFloat": _to_floats,
    "ToGray": _to_gray,
    "ToRGB": _to_rgb,
    "ToTensor3D": _to_tensor,
    "ToTensorV2": _to_tensor,
}
"""Transforms that change the pixel format; a test verifies that no others do."""


def _after_leaf(transform: Any, name: str, pixel_format: PixelFormat, where: str) -> PixelFormat:
    change = _CHANGES.get(name)
    return pixel_format if change is None else change(transform, pixel_format, where)
