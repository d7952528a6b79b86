"""Pydantic models for user configuration; validation errors are raised as a one-line PlanError."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import PlanError, did_you_mean
from ..text import quoted
from .imports import AllowedModules
from .path_fields import resolve_paths

M = TypeVar("M", bound=BaseModel)


class CheckedModel(BaseModel):
    """A frozen model that forbids unknown keys and raises PlanError instead of ValidationError."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    if not TYPE_CHECKING:  # type checkers see the keyword arguments derived by pydantic

        def __init__(self, **data: Any) -> None:
            try:
                super().__init__(**data)
            except ValidationError as error:
                raise plan_error(type(self), error, type(self).__name__) from error

        # Marked like pydantic's own __init__, so that nested models and ``model_validate`` do not call it.
        __init__.__pydantic_base_init__ = True

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Validate a mapping and build the model.

        Raises:
            PlanError: a key is unknown or a value is invalid.
        """
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise plan_error(cls, error, cls.__name__) from error


def build_checked(
    cls: type[M],
    content: Mapping[str, Any],
    *,
    where: str,
    folder: Path,
    allowed: AllowedModules | None = None,
) -> M:
    """Build a model from YAML content; relative paths are resolved against ``folder``.

    Args:
        cls: the model.
        content: keys and values of the document.
        where: name of the document, for error messages.
        folder: folder of the document.
        allowed: modules that its policies may import from.

    Raises:
        PlanError: lists each invalid key with the expected value, or with a similar known key.
    """
    try:
        resolved = resolve_paths(cls, content, folder)
    except RuntimeError as error:  # a '~name' without a home folder
        raise PlanError(
            f"{where}: expected paths that exist, got one below an unknown home folder; correct it"
        ) from error
    try:
        # Not ``model_validate``, which names the class instead of the document in errors.
        found: M = cls.__pydantic_validator__.validate_python(
            resolved, context=(allowed or AllowedModules()).context()
        )
    except ValidationError as error:
        raise plan_error(cls, error, where) from error
    return found


def plan_error(cls: type[BaseModel], error: ValidationError, where: str) -> PlanError:
    """Convert a ValidationError to a PlanError with all errors in one line."""
    lines = [describe_error(cls, cast("dict[str, Any]", item)) for item in error.errors(include_url=False)]
    return PlanError(f"{where}: " + "; ".join(lines))


def describe_error(cls: type[BaseModel], item: dict[str, Any]) -> str:
    """Format one validation error in one line."""
    location = [str(part) for part in item["loc"]]
    place = ".".join(location)
    if item["type"] == "extra_forbidden":
        model: Any = cls
        for part in location[:-1]:
            annotation = model.model_fields[part].annotation if part in model.model_fields else model
            candidates = (annotation, *getattr(annotation, "__args__", ()))
            model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
        known = list(model.model_fields)
        return f"{place}: no such key; {did_you_mean(location[-1], known) or 'known are ' + ', '.join(known)}"
    if item["type"] == "missing":
        return f"{place}: missing; add it"
    message = item["msg"].removeprefix("Value error, ").removeprefix(f"{place}: ")
    if item["type"] == "value_error":  # raised by a validator of Lightwell, with a complete message
        return message if place and message.startswith(place) else f"{place}: {message}".removeprefix(": ")
    if item["type"] in ("model_type", "dataclass_type"):
        message = "expected 'key: value' lines below it"
    expected = message.replace("Input should be ", "expected ").partition(", unable to parse")[0]
    return f"{place}: {expected}, got {quoted(item['input'])}; correct it"
