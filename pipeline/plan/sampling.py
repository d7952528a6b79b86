"""Class-balanced sampling for training views: the plan's key ``sampling``."""

from __future__ import annotations

from typing import Any, Self

from pydantic import model_serializer, model_validator

from ..config.checked_model import CheckedModel
from ..errors import did_you_mean


class Sampling(CheckedModel):
    """Class weights for sampling in training views: ``balanced`` or ``{weights: {class: number}}``."""

    weights: dict[str, float] | None = None
    """Weight by class name (default: 1). Each class makes up a share of the epoch in proportion to its weight."""

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value != "balanced":
            hint = did_you_mean(value, ["balanced"]) or "write one of them"
            raise ValueError(f"expected balanced or weights: {{class: number}}, got {value!r}; {hint}")
        return {}

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        for name, weight in (self.weights or {}).items():
            if not 0 < weight < float("inf"):
                raise ValueError(
                    f"weights: expected numbers above 0, got {weight:g} for {name!r}; to leave a class out, "
                    "index without it"
                )
        return self

    @model_serializer
    def _dump(self) -> Any:
        return "balanced" if self.weights is None else {"weights": self.weights}
