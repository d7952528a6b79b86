"""Errors of Ray: those that repeating the work repairs, and the meaning of the others for the user."""

from __future__ import annotations

from collections.abc import Iterator

from ...pipeline.errors import LightwellError, RunError, WorkerDiedError

RETRIES = 3
"""Retries of a batch whose process died, before the run fails."""


def is_lost(error: BaseException) -> bool:
    """Whether a process, a node or an object was lost, so that the work is to be done again elsewhere."""
    from ray import exceptions

    lost = (
        exceptions.RayActorError,
        exceptions.ObjectLostError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
    )
    return any(
        isinstance(one, lost) and not getattr(one, "actor_init_failed", False) for one in _causes(error)
    )


def lost_actor(error: BaseException) -> str | None:
    """Return the id of the actor that was lost; None if another thing was, or Ray does not know."""
    return next((found for one in _causes(error) if (found := getattr(one, "actor_id", None))), None)


def unwrap_ray_error(error: BaseException) -> LightwellError:
    """Convert an error of Ray to the LightwellError raised in the worker, or to one that reports failure or death."""
    import ray

    for one in _causes(error):
        if isinstance(one, LightwellError) and not hasattr(
            one, "cause"
        ):  # Ray's wrapper is also of its class
            return one
    if isinstance(error, ray.exceptions.RayActorError) and not error.actor_init_failed:
        return WorkerDiedError(
            f"a worker: expected a running process, got one that died {RETRIES + 1} times ({first_line(error)}); check Ray's "
            "logs for the cause, such as out of memory (more CPUs per worker mean fewer workers)"
        )
    return RunError(f"a worker failed: {_lines(error)[-1]}")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return _lines(error)[0]


def _lines(error: BaseException) -> list[str]:
    return [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it, in Ray's way and in Python's."""
    current: BaseException | None = error
    while current is not None:
        yield current
        inner = getattr(current, "cause", None)
        current = inner if isinstance(inner, BaseException) else current.__cause__
