"""Streams a job's log, over dropped connections, until the job ends."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

from ...pipeline.errors import RequestError, RunError
from ...pipeline.text import plain_log
from .server import JobServer, JobState

UNREACHABLE_TIMEOUT_S = 60.0
"""Seconds without an answer of the server after which streaming ends; the job continues."""
RETRY_INTERVAL_S = 0.5

_UNFINISHED = re.compile(r"(?:\r|\x1b(?:\[[0-9;]{0,16})?)\Z")
"""Incomplete control sequence at the end of a chunk, for which ``plain_log`` needs the next chunk."""


def follow(
    job: str, server: JobServer, write: Callable[[str], None], *, timeout_s: float = UNREACHABLE_TIMEOUT_S
) -> JobState:
    """Stream a job's log until the job ends; returns its final state.

    Args:
        job: id of the job.
        server: its job server.
        write: called with chunks of the log, including line ends.
        timeout_s: seconds without an answer after which to give up.

    Raises:
        RequestError: there is no such job.
        RunError: the server does not answer for too long.
    """
    log = _Log(write)
    last_answer_s = time.monotonic()
    while True:
        try:
            state = server.state(job)
            if state.has_ended:
                log.finish(server.logs(job))
                return state
            last_answer_s = time.monotonic()
            asyncio.run(log.tail(job, server))
        except RequestError:
            raise
        except (OSError, RuntimeError) as error:  # RunError and aiohttp's errors are among them
            if time.monotonic() - last_answer_s > timeout_s:
                raise RunError(
                    f"jobs: expected the log of {job}, got no answer from {server.address} for {timeout_s:.0f} s ({error}); "
                    f"the job may still be running: lightwell jobs logs {job} --follow --address {server.address}"
                ) from error
        time.sleep(RETRY_INTERVAL_S)


class _Log:
    """Position in a log that every connection sends from its start."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._num_written = 0
        self._incomplete = ""
        """Start of an incomplete control sequence."""

    async def tail(self, job: str, server: JobServer) -> None:
        """Write new output of one connection, until it ends."""
        num_seen = 0
        async for chunk in server.client.tail_job_logs(job):
            new = chunk[max(self._num_written - num_seen, 0) :]
            num_seen += len(chunk)
            self._write_new(new)

    def finish(self, whole: str) -> None:
        """Write the rest of a complete log."""
        self._write_new(whole[self._num_written :])
        if self._incomplete:
            self._write(plain_log(self._incomplete))
            self._incomplete = ""

    def _write_new(self, text: str) -> None:
        """Write output without terminal control sequences."""
        self._num_written += len(text)
        text = self._incomplete + text
        unfinished = _UNFINISHED.search(text)
        self._incomplete = unfinished[0] if unfinished else ""
        if text := text[: len(text) - len(self._incomplete)]:
            self._write(plain_log(text))
