"""Error policy: handling of bad files and limits on their number; the plan's key ``errors``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ..config.checked_model import CheckedModel
from ..formats.headers import MAX_PIXELS
from ..storage.storage import DEFAULT_MAX_WAIT_S

MIN_IMAGES_FOR_SHARE = 256
"""``max_bad_share`` applies once this many images were read; a share of fewer is not significant."""

DEFAULT_MAX_SHARE = 0.1
MAX_FILE_BYTES = 512 * 2**20


class ErrorPolicy(CheckedModel):
    """What to do with unusable files, and when to abort the run.

    * ``on_error: replace``: another image of the view, chosen by (seed, epoch, key of the bad image), takes its place;
      batches keep their size.
    * ``skip``: the image is left out and its batch is smaller; empty batches are not yielded. Training skips batches with
      a single remaining image.
    * ``raise``: the first bad file aborts the run.

    Rows that are marked as bad in the index are never read and do not count towards the limits.
    """

    on_error: Literal["replace", "skip", "raise"] = "replace"
    max_bad: int | None = Field(default=None, ge=0)
    """Abort above this number of distinct bad files (default: no limit)."""
    max_bad_share: float | None = Field(default=DEFAULT_MAX_SHARE, ge=0, le=1)
    """Abort above this share of bad images, checked once 256 images were read; None disables the limit."""
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, le=MAX_PIXELS)
    """Images with more pixels are not decoded. The index rejects images above the default."""
    max_file_bytes: int = Field(default=MAX_FILE_BYTES, ge=1)
    """Files above this size are not read."""
    max_seconds_per_file: float | None = Field(default=60.0, gt=0)
    """Time limit for one step on one file. A file that exceeds it counts as bad and is not tried again in later epochs.
    Threads cannot be cancelled: if a step does not return within twice this time, the run aborts and names the file. The
    only option that depends on the speed of the machine; None disables it."""
    max_wait_s: float = Field(default=DEFAULT_MAX_WAIT_S, gt=0)
    """Abort if a remote source does not respond, or responds with errors, for this long, plus one second per requested
    megabyte."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return the options that affect batches, without the limits that only abort a run."""
        return self.model_dump(include={"on_error", "max_pixels", "max_file_bytes"})
