"""Failure policy for Ray Train: errors of Lightwell are permanent and not retried."""

from __future__ import annotations

from typing import Any

import ray
from ray.train import UserCallback

from ...pipeline.errors import RunError


class StopOnPermanentError(UserCallback):
    """Stops a run after a rank has reported a permanent error. Runs in Ray Train's controller."""

    def __init__(self, reporter: Any) -> None:
        self._reporter = reporter

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        """Raise, which Ray Train treats as an error of its controller and does not retry."""
        if ray.get(self._reporter.failed.remote()):
            raise RunError("a rank has reported a permanent error")
