"""Transform specs: name, options and children of a transform as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from ..config.checked_model import CheckedModel
from ..config.imports import AllowedModules
from ..errors import LightwellError, PlanError
from ..text import one_line, quoted
from ..warning_filter import ignored_warnings
from .channel_options import check_channels
from .compose_options import check_composition
from .registry import check_options, check_permitted, find_transform, is_composition_class

if TYPE_CHECKING:
    import albumentations

MAX_NUMBER = 2**32
"""Maximum magnitude of numeric options."""


class TransformSpec(CheckedModel):
    """Name, options and, for compositions, children of a transform.

    Raises:
        PlanError: the name is not allowed, or an option is not a plain value.
    """

    name: str
    """An Albumentations class, an entry point of ``lightwell.transforms``, or ``module:Class``."""
    options: dict[str, Any] = Field(default={})
    """Plain values: None, bool, int, float, str, and lists and dicts of these."""
    children: tuple[TransformSpec, ...] = ()

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str, info: ValidationInfo) -> str:
        check_permitted(name, "transform", AllowedModules.from_context(info.context))
        return name

    @field_validator("options")
    @classmethod
    def _make_plain(cls, options: dict[str, Any]) -> dict[str, Any]:
        return {name: to_plain(value, name) for name, value in options.items()}

    def dump(self) -> dict[str, Any]:
        """Return the YAML form."""
        children = {"transforms": [child.dump() for child in self.children]} if self.children else {}
        return {self.name: {**children, **self.options}}

    def build(self, where: str) -> albumentations.BasicTransform:
        """Build the Albumentations object.

        Args:
            where: location in the plan, for error messages.

        Raises:
            PlanError: an option is unknown, or is rejected by the class.
        """
        where = f"{where}.{self.name}"
        cls = find_transform(self.name, where)
        check_options(cls, self.options, where)
        options: dict[str, Any] = dict(self.options)
        if is_composition_class(cls):
            check_composition(cls, self.options, len(self.children), where)
            options["transforms"] = [
                child.build(f"{where}.transforms[{i}]") for i, child in enumerate(self.children)
            ]
        elif self.children:
            raise PlanError(f"{where}.transforms: no such option; only compositions hold transforms")
        if hasattr(cls.__init__, "__signature__"):  # raises instead of warning about invalid options
            options["strict"] = True
        if cls.__module__.startswith("albumentations."):  # some of its checks reject lists
            options |= {name: as_tuples(value) for name, value in self.options.items()}
        try:
            with ignored_warnings():  # options have been checked
                built = cls(**options)
        except LightwellError:
            raise
        except Exception as error:
            raise PlanError(
                f"{where}{_reason(error)}; see help of {cls.__module__}.{cls.__name__}"
            ) from error
        if cls.__module__.startswith("albumentations."):
            check_channels(built, where)
        return built


def to_plain(value: Any, where: str) -> Any:
    """Convert tuples, enums and NumPy values to plain values for YAML and JSON.

    Raises:
        PlanError: the value has no plain form, or a number is not finite or too large.
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        if not (math.isfinite(value) and abs(value) <= MAX_NUMBER):
            raise PlanError(
                f"{where}: expected a finite number of at most {MAX_NUMBER:,}, got {quoted(value)}; correct it"
            )
        return value
    if isinstance(value, list | tuple):
        return [to_plain(item, where) for item in value]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise PlanError(f"{where}: expected names as keys, got {quoted(key)}; correct it")
        return {key: to_plain(item, f"{where}.{key}") for key, item in value.items()}
    raise PlanError(
        f"{where}: expected a serializable value, got {quoted(value)}; "
        "define a class of your own that builds it"
    )


def as_tuples(value: Any) -> Any:
    """Convert the lists in a plain value to tuples."""
    if isinstance(value, list):
        return tuple(map(as_tuples, value))
    return {key: as_tuples(item) for key, item in value.items()} if isinstance(value, dict) else value


def _reason(error: BaseException) -> str:
    """Format an error of Albumentations in one line; unwraps errors of pydantic."""
    inner = next(
        (e for e in (error, error.__context__, error.__cause__) if isinstance(e, ValidationError)), None
    )
    if inner is None:
        message = one_line(" ".join(str(error).split()))
        return f": {message if len(message) <= 200 else f'{message[:200]}...'}"
    problems = inner.errors(include_url=False)
    name = problems[0]["loc"][:1]
    of_name = [
        problem for problem in problems if problem["loc"][:1] == name
    ]  # one for each type that it may have
    place = problems[0]["loc"] if len(of_name) == 1 else name
    return f"{''.join(f'.{part}' for part in place)}: {_describe(of_name)}"


def _describe(problems: Sequence[Any]) -> str:
    if problems[0]["type"] == "missing":
        return "expected a value, got none"
    messages: list[str] = [problem["msg"].partition(", unable to parse")[0] for problem in problems]
    found = dict.fromkeys(message.removeprefix("Input should be ") for message in messages)
    got = quoted(problems[0]["input"])
    if problems[0]["type"] == "value_error":  # names what it got
        return messages[0].removeprefix("Value error, ")
    return f"expected {' or '.join(found)}, got {got}"
