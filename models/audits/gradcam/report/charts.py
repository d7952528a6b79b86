"""Charts of the report as inline SVG, styled by the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 30

Curve = Sequence[tuple[float, float]]


def line_chart(curves: Mapping[str, Curve], label: str) -> Markup:
    """Draw curves over epochs, numbered from 1, with escaped names."""
    points = [point for curve in curves.values() for point in curve]
    x_low, x_high = axis_range([x for x, _ in points], tight=True)
    y_low, y_high = axis_range([y for _, y in points])

    def to_pixels(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (y_high - y) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)} over epochs">']
    for value in round_ticks(y_low, y_high):
        _, down = to_pixels(x_low, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down:.1f}" y2="{down:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{down + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for x in epoch_ticks(x_low, x_high):
        across, _ = to_pixels(x, y_low)
        parts.append(f'<text x="{across:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{x + 1:g}</text>')
    for number, (name, curve) in enumerate(curves.items()):
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in (to_pixels(x, y) for x, y in curve))
        parts.append(
            f'<polyline class="curve c{number % 6}" points="{path}"><title>{escape(name)}</title></polyline>'
        )
        a, b = to_pixels(*curve[-1])
        parts.append(f'<circle class="dot c{number % 6}" cx="{a:.1f}" cy="{b:.1f}" r="3.2"/>')
    return Markup("".join(parts) + "</svg>")  # noqa: S704  names are escaped, the rest are numbers


def reliability_chart(calibration: Mapping[str, Any] | None) -> Markup | None:
    """Draw the reliability diagram: accuracy by confidence bin, and the diagonal; None without calibration."""
    if not calibration:
        return None
    side, left, top = HEIGHT - TOP - BOTTOM, LEFT, TOP
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Accuracy by confidence">']
    wide = WIDTH - LEFT - RIGHT
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        down = top + (1 - share) * side
        parts.append(f'<line class="grid" x1="{left}" x2="{left + wide}" y1="{down:.1f}" y2="{down:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{down + 4:.1f}" text-anchor="end">{share:g}</text>')
        parts.append(
            f'<text x="{left + share * wide:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{share:g}</text>'
        )
    for each in calibration["bins"]:
        x, width = left + each["from"] * wide, (each["to"] - each["from"]) * wide
        tall = max(1.0, each["accuracy"] * side)
        text = f"confidence {each['confidence']:.2f}, accuracy {each['accuracy']:.2f}, {each['num_images']:,} images"
        parts.append(
            f'<rect class="bar" x="{x + 1:.1f}" y="{top + side - tall:.1f}" width="{width - 2:.1f}" height="{tall:.1f}">'
            f"<title>{text}</title></rect>"
        )
    parts.append(f'<line class="curve c0" x1="{left}" y1="{top + side}" x2="{left + wide}" y2="{top}"/>')
    return Markup("".join(parts) + "</svg>")  # noqa: S704  only numbers


def axis_range(values: Sequence[float], tight: bool = False) -> tuple[float, float]:
    """Return the limits of an axis, which are never equal."""
    low, high = min(values), max(values)
    if low == high:
        return low - 0.5, high + 0.5
    margin = 0.0 if tight else 0.06 * (high - low)
    return low - margin, high + margin


def round_ticks(low: float, high: float) -> list[float]:
    """Return three to eight ticks inside an axis, spaced by 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def epoch_ticks(low: float, high: float) -> list[int]:
    """Return at most eight integer epochs for tick labels."""
    first, last = math.ceil(low), math.floor(high)
    step = max(1, math.ceil((last - first) / 7))
    return list(range(first, last + 1, step))
