"""Color space conversions with OpenCV's rounding: gray, YCrCb, HSV and the lightness of Lab, for uint8 images.

The integer formulas are OpenCV's (modules/imgproc/src/color_yuv.simd.hpp and color_hsv.simd.hpp, and "Color
conversions" in its documentation); every constant is its weight times a power of two.
"""

from __future__ import annotations

from ..lowering import Device, Node
from .arithmetic import (
    as_float,
    as_int,
    channels,
    clamp_to_uint8,
    lookup,
    per_channel,
    to_uint8_floor,
    to_uint8_round,
)

_SRGB_TO_LINEAR = [
    (v / 255 / 12.92 if v / 255 <= 0.04045 else ((v / 255 + 0.055) / 1.055) ** 2.4) for v in range(256)
]
"""Linear light by sRGB value: IEC 61966-2-1."""


def rgb_to_gray(images: Node) -> Node:
    """Convert RGB to gray with weights 0.299, 0.587 and 0.114; HWC with one channel, int32."""
    red, green, blue = channels(as_int(images))
    return (red * 9798 + green * 19235 + blue * 3735 + (1 << 14)) // (1 << 15)


def rgb_to_lightness(images: Node) -> Node:
    """Compute L of CIE Lab, 0 to 255; HWC with one channel, uint8."""
    from nvidia.dali import math

    red, green, blue = channels(lookup(images, _SRGB_TO_LINEAR, "float32"))
    luminance = red * 0.212671 + green * 0.715160 + blue * 0.072169
    dark = as_float(luminance <= 0.008856)
    light = dark * (luminance * 903.3) + (1.0 - dark) * (116.0 * math.cbrt(luminance) - 16.0)
    return to_uint8_round(light * 2.55)


def rgb_to_ycrcb(images: Node) -> tuple[Node, Node, Node]:
    """Convert RGB to Y, Cr and Cb; HWC with one channel each, int32."""
    red, green, blue = channels(as_int(images))
    luma = (red * 4899 + green * 9617 + blue * 1868 + (1 << 13)) // (1 << 14)
    middle = (128 << 14) + (1 << 13)
    return (
        luma,
        as_int(clamp_to_uint8(((red - luma) * 11682 + middle) // (1 << 14))),
        as_int(clamp_to_uint8(((blue - luma) * 9241 + middle) // (1 << 14))),
    )


def ycrcb_to_rgb(luma: Node, cr: Node, cb: Node) -> Node:
    """Convert Y, Cr and Cb, int32 with one channel each, to RGB, uint8 HWC."""
    from nvidia.dali import fn

    up = 512  # keeps dividends positive: integer division truncates towards zero, OpenCV's shift rounds down
    half = (1 << 13) + (up << 14)
    red = luma + ((cr - 128) * 22987 + half) // (1 << 14) - up
    green = luma + ((cr - 128) * -11698 + (cb - 128) * -5636 + half) // (1 << 14) - up
    blue = luma + ((cb - 128) * 29049 + half) // (1 << 14) - up
    return clamp_to_uint8(fn.cat(red, green, blue, axis=2))


def rgb_to_hsv(images: Node) -> tuple[Node, Node, Node]:
    """Convert RGB to hue (0 to 179), saturation and value (0 to 255); HWC with one channel each, int32."""
    from nvidia.dali import math

    red, green, blue = channels(images)
    highest = math.max(math.max(red, green), blue)
    lowest = math.min(math.min(red, green), blue)
    value = as_int(highest)
    spread = value - as_int(lowest)
    per_value = lookup(highest, [0, *(round((255 << 12) / i) for i in range(1, 256))], "int32")
    per_spread = lookup(spread, [0, *(round((180 << 12) / (6 * i)) for i in range(1, 256))], "int32")
    saturation = (spread * per_value + (1 << 11)) // (1 << 12)
    is_red = as_int(highest == red)
    is_green = as_int(highest == green) * (1 - is_red)
    is_blue = 1 - is_red - is_green
    red, green, blue = as_int(red), as_int(green), as_int(blue)
    sixths = (
        is_red * (green - blue) + is_green * (blue - red + spread * 2) + is_blue * (red - green + spread * 4)
    )
    hue = (sixths * per_spread + (1 << 11) + (180 << 12)) // (1 << 12) - 180
    return hue + 180 * as_int(hue < 0), saturation, value


def hsv_to_rgb(hue: Node, saturation: Node, value: Node, device: Device) -> Node:
    """Convert hue, saturation and value, int32 with one channel each, to RGB, uint8 HWC.

    A channel is v(1 - sw), where w rises from 0 to 1 and falls with the distance to its own hue; the order of operations
    is OpenCV's, for bit-identical results. OpenCV 5 truncates fractions, OpenCV 4 rounds them.
    """
    from nvidia.dali import math

    sixth = as_float(hue) * (6.0 / 180.0)
    sector = math.floor(sixth)
    fraction = sixth - sector
    position = as_int(sector) + per_channel([5, 3, 1], device)
    position = position - 6 * as_int(position >= 6)
    weight = (
        as_float(position == 0) * fraction
        + as_float(position == 1)
        + as_float(position == 2)
        + as_float(position == 3) * (1.0 - fraction)
    )
    share = 1.0 - as_float(saturation) * (1.0 / 255.0) * weight
    return to_uint8_floor(as_float(value) * (1.0 / 255.0) * share * 255.0)
