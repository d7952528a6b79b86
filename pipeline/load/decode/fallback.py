"""Tells of decoders that could not and of who took over: once for each kind of reason, not for each picture."""

from __future__ import annotations

import logging
import re
import threading

MAX_KINDS = 20
"""Kinds of reasons that one feed tells; files that differ in every message would fill a log."""

logger = logging.getLogger("lightwell")
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")


class FallbackLog:
    """Logs the first fall-back of each kind as a warning. Any thread may use it."""

    def __init__(self) -> None:
        self._logged: set[str] = set()
        self._lock = threading.Lock()

    def log(self, key: str, reason: str, decoder: str) -> None:
        """Note that a file was decoded by another than the first choice.

        Args:
            key: of the sample.
            reason: what failed before and why, ``dali: ...``; numbers in it do not make it another kind.
            decoder: who decoded it.
        """
        kind = _NUMBER.sub("#", reason)
        with self._lock:
            if kind in self._logged or len(self._logged) >= MAX_KINDS:
                return
            self._logged.add(kind)
        logger.warning(
            "decode: %r could not be decoded as planned (%s); %s decoded it, which may take longer; "
            "others with this reason are not listed",
            key,
            reason,
            decoder,
        )
