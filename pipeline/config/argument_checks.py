"""Validate arguments given in Python: wrong types and values raise a PlanError."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..errors import PlanError, did_you_mean
from ..text import quoted

MAX_COUNT = 2**31 - 1


def check_count(name: str, value: Any, *, minimum: int = 0, maximum: int = MAX_COUNT) -> None:
    """Check that a value is an integer within bounds.

    Raises:
        PlanError: it is not; names the option.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
        raise PlanError(
            f"{name}: expected a whole number from {minimum} to {maximum:,}, got {quoted(value)}; correct it"
        )


def check_number(name: str, value: Any) -> None:
    """Check that a value is a finite number.

    Raises:
        PlanError: it is not; names the option.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -MAX_COUNT < value < MAX_COUNT:
        raise PlanError(f"{name}: expected a finite number, got {quoted(value)}; correct it")


def check_flag(name: str, value: Any) -> None:
    """Check that a value is a bool.

    Raises:
        PlanError: it is not; names the option.
    """
    if not isinstance(value, bool):
        raise PlanError(f"{name}: expected True or False, got {quoted(value)}; correct it")


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Check that a value is one of some strings.

    Raises:
        PlanError: it is not; names the option and suggests a similar choice.
    """
    if not isinstance(value, str) or value not in choices:
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise PlanError(
            f"{name}: expected {' or '.join(choices)}, got {quoted(value)}; {hint or 'correct it'}"
        )


def check_text(name: str, value: Any) -> None:
    """Check that a value is a string or None.

    Raises:
        PlanError: it is not; names the option.
    """
    if value is not None and not isinstance(value, str):
        raise PlanError(f"{name}: expected text or None, got {quoted(value)}; correct it")


def check_type(name: str, value: Any, *classes: type) -> None:
    """Check that a value is an instance of one of some classes.

    Raises:
        PlanError: it is not; names the option, the expected and the actual class.
    """
    if not isinstance(value, classes):
        expected = " or ".join(cls.__name__ for cls in classes)
        raise PlanError(f"{name}: expected {expected}, got {type(value).__name__}; pass one")
