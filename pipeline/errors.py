"""Exception hierarchy.

* LightwellError            base class; ``exit_code`` is the exit code of the command line
  + RequestError            invalid request (exit code 2); nothing was changed
    - SourceError           unusable folder, table or index
    - PlanError             invalid plan, policy or job
    - ModelError            unavailable model, weights or layer
  + RunError                valid request, failed run (exit code 1)
    - SampleError           one sample failed; carries its key and the step
    - SourceUnavailableError  a bucket or server does not respond, or responds with errors
    - SampleTimeoutError    processing one file exceeded the time limit and cannot be cancelled
    - WorkerDiedError       a worker process died repeatedly
    - OutputError           a result could not be written

Every message reads "expected X, got Y; do Z".
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from .text import printable


class LightwellError(Exception):
    """Base class of all errors that Lightwell raises; control characters in messages are escaped."""

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class RequestError(LightwellError, ValueError):
    """The request is invalid; nothing was changed."""

    exit_code = 2


class SourceError(RequestError):
    """A folder, a table or an index cannot be used."""


class PlanError(RequestError):
    """A plan, a policy or a job is invalid."""


class ModelError(RequestError):
    """A model, its weights or one of its layers is not available."""


class RunError(LightwellError, RuntimeError):
    """The request is valid, but the run failed."""


class SampleError(RunError):
    """One sample failed at one step.

    Attributes:
        key: the sample's key in the index.
        step: the step that failed, such as ``decode``.
        reason: the cause, in one line.
    """

    def __init__(self, key: str, step: str, reason: str) -> None:
        super().__init__(key, step, reason)
        self.key = key
        self.step = step
        self.reason = reason

    def __str__(self) -> str:
        return printable(f"{self.step} of {self.key!r}: {self.reason}")


class SourceUnavailableError(RunError):
    """A remote source did not respond, or responded with errors, for longer than ``errors.max_wait_s``."""


class SampleTimeoutError(RunError):
    """Processing one file exceeded the time limit; its thread cannot be cancelled, only the process can be ended."""


class WorkerDiedError(RunError):
    """A worker process died repeatedly."""


class OutputError(RunError):
    """A result could not be written."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return a spelling suggestion for the end of an error message.

    Returns:
        ``"did you mean 'a' or 'b'?"``, or the empty string if no known name is similar.
    """
    names = list(known)
    folded = {name.casefold(): name for name in names}
    matches = difflib.get_close_matches(wrong.casefold(), folded, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(repr(folded[name]) for name in matches)}?" if matches else ""
