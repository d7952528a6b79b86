"""What a plan says of its cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ..config.checked_model import CheckedModel

DEFAULT_QUALITY = 95


class CacheOptions(CheckedModel):
    """Where pixels behind the last deterministic step are kept, in what form, and how many bytes of them."""

    short_form: ClassVar[str] = "dir"
    """The key that a plain value stands for: ``cache: PATH``."""

    dir: Path
    max_bytes: int | None = Field(default=None, ge=1)
    """Of all shards in ``dir``. When they are reached nothing more is added; nothing is thrown away in a run."""
    format: Literal["raw", "jpeg"] = "raw"
    """``raw`` keeps every bit; ``jpeg`` takes about a tenth of the room, is slower to read and loses some."""
    quality: int | None = Field(default=None, ge=1, le=100)
    """Of the JPEGs; 95 where nothing is said."""
    shared: bool = False
    """Accept a folder that other users own or may write; everyone who may write to it decides on its pixels."""

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        return {cls.short_form: value} if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _quality_is_of_jpeg(self) -> Self:
        if self.quality is not None and self.format == "raw":
            raise ValueError(
                f"expected format: jpeg beside a quality, got raw and {self.quality}; leave one out"
            )
        return self

    @property
    def jpeg_quality(self) -> int | None:
        """Return the quality that is used, None for raw pixels."""
        return None if self.format == "raw" else self.quality or DEFAULT_QUALITY

    def fingerprint_fields(self) -> dict[str, Any] | None:
        """Return what changes batches: nothing for raw pixels, wherever and however many are kept."""
        return None if self.format == "raw" else {"format": self.format, "quality": self.jpeg_quality}
