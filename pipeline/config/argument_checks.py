"""Checks of options that users give in Python: what is of the wrong kind is a PlanError in one line."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..errors import PlanError, did_you_mean
from ..text import quoted

MAX_COUNT = 2**31 - 1


def check_count(name: str, value: Any, *, minimum: int = 0, maximum: int = MAX_COUNT) -> None:
    """Refuse what is no whole number within bounds.

    Raises:
        PlanError: it is none; names the option.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
        raise PlanError(
            f"{name}: expected a whole number from {minimum} to {maximum:,}, got {quoted(value)}; correct it"
        )


def check_number(name: str, value: Any) -> None:
    """Refuse what is no finite number.

    Raises:
        PlanError: it is none; names the option.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -MAX_COUNT < value < MAX_COUNT:
        raise PlanError(f"{name}: expected a finite number, got {quoted(value)}; correct it")


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False.

    Raises:
        PlanError: it is neither; names the option.
    """
    if not isinstance(value, bool):
        raise PlanError(f"{name}: expected True or False, got {quoted(value)}; correct it")


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Refuse what is none of some words.

    Raises:
        PlanError: it is none; names the option and the nearest word.
    """
    if not isinstance(value, str) or value not in choices:
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise PlanError(
            f"{name}: expected {' or '.join(choices)}, got {quoted(value)}; {hint or 'correct it'}"
        )


def check_text(name: str, value: Any) -> None:
    """Refuse what is neither text nor None.

    Raises:
        PlanError: it is neither; names the option.
    """
    if value is not None and not isinstance(value, str):
        raise PlanError(f"{name}: expected text or None, got {quoted(value)}; correct it")


def check_type(name: str, value: Any, *kinds: type) -> None:
    """Refuse what is of no wanted class.

    Raises:
        PlanError: it is of another; names the option and both classes.
    """
    if not isinstance(value, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise PlanError(f"{name}: expected {wanted}, got {type(value).__name__}; pass one")
