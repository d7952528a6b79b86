"""The errors of Lightwell, one tree.

* LightwellError            anything this package raises on purpose; ``exit_code`` tells the command line
  + RequestError            the request was wrong (exit code 2); nothing was touched
    - SourceError           a folder, table or index that cannot be used
    - PlanError             a plan, a policy or a job that cannot be right
    - ModelError            a model, its weights or a layer that cannot be had
  + RunError                the request was fine, the run failed (exit code 1)
    - SampleError           one sample failed; carries its key and the step
    - SourceUnavailableError       a bucket, a server or another source gives no answer, or wrong ones
    - SampleTimeoutError            one file never came to an end; its thread cannot be ended either
    - WorkerDiedError       a worker's process died again and again
    - OutputError           a result could not be written

Every message says "expected X, got Y; do Z".
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from .text import printable


class LightwellError(Exception):
    """Base of every error that Lightwell raises on purpose; control characters in its message are shown as escapes."""

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class RequestError(LightwellError, ValueError):
    """The request was wrong; nothing was touched."""

    exit_code = 2


class SourceError(RequestError):
    """A folder, a table or an index cannot be used."""


class PlanError(RequestError):
    """A plan, a policy or a job cannot be right."""


class ModelError(RequestError):
    """A model, its weights or one of its layers cannot be had."""


class RunError(LightwellError, RuntimeError):
    """The request was fine and the run failed."""


class SampleError(RunError):
    """One sample failed at one step.

    Attributes:
        key: the sample's key in the index.
        step: the step that failed, such as ``decode``.
        reason: what went wrong, in one line.
    """

    def __init__(self, key: str, step: str, reason: str) -> None:
        super().__init__(key, step, reason)
        self.key = key
        self.step = step
        self.reason = reason

    def __str__(self) -> str:
        return printable(f"{self.step} of {self.key!r}: {self.reason}")


class SourceUnavailableError(RunError):
    """A bucket, a server or another source gives no answer, or wrong ones, for longer than was allowed."""


class SampleTimeoutError(RunError):
    """One file never came to an end; its thread cannot be ended either, only the process can."""


class WorkerDiedError(RunError):
    """A worker's process died again and again."""


class OutputError(RunError):
    """A result could not be written."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Say which known names are nearest to a wrong one, as the end of an error message.

    Returns:
        ``"did you mean 'a' or 'b'?"``, or the empty string where nothing is near.
    """
    names = list(known)
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(wrong.casefold(), folded, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(repr(folded[name]) for name in near)}?" if near else ""
