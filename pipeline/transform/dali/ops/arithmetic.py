"""Pixel arithmetic shared by the operators, with the rounding of NumPy and OpenCV."""

from __future__ import annotations

from collections.abc import Sequence

from ..lowering import Device, Node


def on_device(argument: Node, device: Device) -> Node:
    """Move an argument to the device of the images."""
    return argument.gpu() if device == "gpu" else argument


def as_float(images: Node) -> Node:
    """Cast to float32 and keep the values."""
    from nvidia.dali import fn, types

    return fn.cast(images, dtype=types.FLOAT)


def as_int(images: Node) -> Node:
    """Cast to int32 and keep the values."""
    from nvidia.dali import fn, types

    return fn.cast(images, dtype=types.INT32)


def to_uint8_floor(values: Node) -> Node:
    """Convert to uint8 as ``numpy.clip(values, 0, 255).astype(uint8)`` does, truncating fractions."""
    from nvidia.dali import fn, math, types

    return fn.cast(math.floor(math.clamp(values, 0.0, 255.0)), dtype=types.UINT8)


def to_uint8_round(values: Node) -> Node:
    """Convert to uint8, rounding halves up, where NumPy and OpenCV round them to even."""
    return to_uint8_floor(values + 0.5)


def clamp_to_uint8(integers: Node) -> Node:
    """Clamp integers to 0..255 and cast to uint8."""
    from nvidia.dali import fn, math, types

    return fn.cast(math.clamp(integers, 0, 255), dtype=types.UINT8)


def lookup(images: Node, table: Sequence[float], dtype: str) -> Node:
    """Map values by a lookup table shared by all samples; ``dtype`` is the type of its entries."""
    from nvidia.dali import fn, types

    kind = {"int32": types.INT32, "float32": types.FLOAT}[dtype]
    return fn.lookup_table(images, keys=list(range(len(table))), values=list(map(float, table)), dtype=kind)


def per_channel(values: Sequence[int], device: Device) -> Node:
    """Return an int32 constant with one value per channel."""
    from nvidia.dali import types

    return types.Constant([int(value) for value in values], dtype=types.INT32, device=device)


def channels(images: Node) -> tuple[Node, Node, Node]:
    """Split into channels, each HWC with one channel."""
    return images[:, :, 0:1], images[:, :, 1:2], images[:, :, 2:3]


def repeat_gray(gray: Node) -> Node:
    """Repeat a single-channel image to three channels."""
    from nvidia.dali import fn

    return fn.cat(gray, gray, gray, axis=2)
