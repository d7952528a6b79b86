"""Numbers and names as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup


def percent(value: float | None) -> str:
    """Format a fraction in percent: ``93.1 %``."""
    return "n/a" if value is None else f"{100 * value:.1f} %"


def interval(value: Sequence[float] | None) -> str:
    """Format an interval of fractions in percent: ``88.0 to 95.2 %``."""
    return "" if value is None else f"{100 * value[0]:.1f} to {100 * value[1]:.1f} %"


def replace_unprintable(value: Any) -> Any:
    """Replace characters that hide or reorder text, such as ESC and right-to-left overrides."""
    if isinstance(value, str) and not isinstance(value, Markup) and not value.isprintable():
        return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in value)
    return value
