"""Follows a job: its log as it grows, over dropped connections, and how it ended."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

from ...pipeline.errors import RequestError, RunError
from ...pipeline.text import plain_log
from .server import JobServer, JobState

PATIENCE_S = 60.0
"""How long a server may be silent before following it ends; the job goes on."""
PAUSE_S = 0.5

_UNFINISHED = re.compile(r"(?:\r|\x1b(?:\[[0-9;]{0,16})?)\Z")
"""The end of a piece of which ``plain_log`` needs to see what follows."""


def follow(
    job: str, server: JobServer, write: Callable[[str], None], *, patience_s: float = PATIENCE_S
) -> JobState:
    """Pass a job's log on as it grows, until the job ends; returns how it ended.

    Args:
        job: its id.
        server: where it runs.
        write: takes the log piece by piece, with its line ends.
        patience_s: seconds without an answer after which to give up.

    Raises:
        RequestError: there is no such job.
        RunError: the server is silent for too long.
    """
    log = _Log(write)
    answered = time.monotonic()
    while True:
        try:
            state = server.state(job)
            if state.has_ended:
                log.catch_up(server.logs(job))
                return state
            answered = time.monotonic()
            asyncio.run(log.tail(job, server))
        except RequestError:
            raise
        except (OSError, RuntimeError) as error:  # RunError and aiohttp's errors are among them
            if time.monotonic() - answered > patience_s:
                raise RunError(
                    f"jobs: expected the log of {job}, got no answer from {server.address} for {patience_s:.0f} s ({error}); "
                    f"the job may well go on: lightwell jobs logs {job} --follow --address {server.address}"
                ) from error
        time.sleep(PAUSE_S)


class _Log:
    """What was passed on of a log that each connection sends from its start."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._num_written = 0
        self._held = ""
        """The start of a colour that is not complete yet."""

    async def tail(self, job: str, server: JobServer) -> None:
        """Pass on what comes over one connection, until it ends."""
        num_seen = 0
        async for piece in server.client.tail_job_logs(job):
            fresh = piece[max(self._num_written - num_seen, 0) :]
            num_seen += len(piece)
            self._pass_on(fresh)

    def catch_up(self, whole: str) -> None:
        """Pass on what no connection has sent, the log having ended."""
        self._pass_on(whole[self._num_written :])
        if self._held:
            self._write(plain_log(self._held))
            self._held = ""

    def _pass_on(self, text: str) -> None:
        """Pass on what a job has printed, without what a terminal would act upon."""
        self._num_written += len(text)
        text = self._held + text
        unfinished = _UNFINISHED.search(text)
        self._held = unfinished[0] if unfinished else ""
        if text := text[: len(text) - len(self._held)]:
            self._write(plain_log(text))
