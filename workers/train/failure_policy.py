"""Tells Ray Train which failures are final: to start the ranks anew would mend nothing."""

from __future__ import annotations

from typing import Any

import ray
from ray.train import UserCallback

from ...pipeline.errors import RunError


class StopOnPermanentError(UserCallback):
    """Ends a run whose ranks have told at the desk why it cannot go on. Lives in Ray Train's controller."""

    def __init__(self, reporter: Any) -> None:
        self._reporter = reporter

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        """Raise, which Ray Train takes for a failure of its own and does not try again."""
        if ray.get(self._reporter.failed.remote()):
            raise RunError("a rank has told why the run cannot go on")
