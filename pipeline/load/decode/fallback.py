"""Log of decoder fallbacks, once per kind of reason, not per image."""

from __future__ import annotations

import logging
import re
import threading

MAX_KINDS = 20
"""Most kinds of reasons logged by one feed, as messages may differ for every file."""

logger = logging.getLogger("lightwell")
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")


class FallbackLog:
    """Logs the first fallback of each kind as a warning. Thread-safe."""

    def __init__(self) -> None:
        self._logged: set[str] = set()
        self._lock = threading.Lock()

    def log(self, key: str, reason: str, decoder: str) -> None:
        """Log that a file was decoded by another than the first choice.

        Args:
            key: of the sample.
            reason: what failed and why, ``dali: ...``; reasons that differ only in numbers are one kind.
            decoder: the decoder that succeeded.
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
