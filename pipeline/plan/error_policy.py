"""What is done about bad files, and how many of them a run bears: the plan's key ``errors``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ..config.checked_model import CheckedModel
from ..formats.headers import MAX_PIXELS
from ..storage.storage import DEFAULT_MAX_WAIT_S

MIN_IMAGES_FOR_SHARE = 256
"""A share of bad images is judged once so many were read: three in the first ten say little."""

DEFAULT_MAX_SHARE = 0.1
MAX_FILE_BYTES = 512 * 2**20


class ErrorPolicy(CheckedModel):
    """What is done about a file that cannot be used, and when a run stops instead of going on without it.

    * ``on_error: replace``: another image of the view stands in, by a rule keyed by (seed, epoch, key of the bad
      one); batches keep their size.
    * ``skip``: the image is left out and its batch is smaller; a batch with none left is not yielded. Training does
      not learn from a batch of which one image is left.
    * ``raise``: the first one stops the run.

    Rows that the index already knows to be bad enter no batch and count for none of the limits.
    """

    on_error: Literal["replace", "skip", "raise"] = "replace"
    max_bad: int | None = Field(default=None, ge=0)
    """Most different files that may turn out bad; None sets no limit."""
    max_bad_share: float | None = Field(default=DEFAULT_MAX_SHARE, ge=0, le=1)
    """Largest share of the images read so far, judged from the 256th on; None sets no limit."""
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, le=MAX_PIXELS)
    """Images with more pixels are not decoded; the index itself refuses those above the default."""
    max_file_bytes: int = Field(default=MAX_FILE_BYTES, ge=1)
    """Larger files are not read."""
    max_seconds_per_file: float | None = Field(default=60.0, gt=0)
    """A file that took longer in one step is not used, in later epochs not even tried. A thread cannot be ended: where
    a step does not come back within twice this time, the run stops and names the file. The one rule that depends
    on the machine; None turns it off."""
    max_wait_s: float = Field(default=DEFAULT_MAX_WAIT_S, gt=0)
    """How long a remote source may give no answer or wrong ones before the run stops; and a second more for each
    megabyte that is asked for."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return what decides what batches hold; limits that only stop a run are left out."""
        return self.model_dump(include={"on_error", "max_pixels", "max_file_bytes"})
