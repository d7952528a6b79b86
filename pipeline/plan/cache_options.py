"""Cache options: the plan's key ``cache``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ..config.checked_model import CheckedModel

DEFAULT_QUALITY = 95


class CacheOptions(CheckedModel):
    """Folder, format and size limit of the cache, which stores images after the last deterministic step."""

    short_form: ClassVar[str] = "dir"
    """The field set by the short form ``cache: PATH``."""

    dir: Path
    max_bytes: int | None = Field(default=None, ge=1)
    """Size limit of all shards in ``dir``. Once it is reached, nothing is added; a run never evicts entries."""
    format: Literal["raw", "jpeg"] = "raw"
    """``raw`` is lossless; ``jpeg`` takes about a tenth of the space, is lossy and slower to read."""
    quality: int | None = Field(default=None, ge=1, le=100)
    """JPEG quality (default: 95)."""
    shared: bool = False
    """Accept a folder that other users own or can write to; anyone with write access can change cached pixels."""

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        return {cls.short_form: value} if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _check_quality(self) -> Self:
        if self.quality is not None and self.format == "raw":
            raise ValueError(
                f"expected format: jpeg beside a quality, got raw and {self.quality}; leave one out"
            )
        return self

    @property
    def jpeg_quality(self) -> int | None:
        """Return the JPEG quality in effect, None for raw pixels."""
        return None if self.format == "raw" else self.quality or DEFAULT_QUALITY

    def fingerprint_fields(self) -> dict[str, Any] | None:
        """Return the options that affect pixels, for the fingerprint; None for raw pixels."""
        return None if self.format == "raw" else {"format": self.format, "quality": self.jpeg_quality}
