"""Escape untrusted text for messages, tables and terminals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .uris import redact_uris

MAX_QUOTED_LENGTH = 80
"""Maximum length of a value in an error message."""

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""Control characters except tab and line feed, characters that reorder or hide text, and lone surrogates."""
_ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""Select graphic rendition (ECMA-48, section 8.3.117)."""
_NAMED_ESCAPES = {"\t": "\\t", "\n": "\\n"}


def printable(text: str) -> str:
    """Escape control characters and characters that reorder or hide text.

    Tabs and line feeds are kept. All printed output goes through this function.
    """
    return _UNSAFE.sub(_escape, text) if not text.isascii() or not text.isprintable() else text


def plain_log(log: str) -> str:
    """Strip colours from a log and escape control characters; updates of a progress bar become lines."""
    return printable(_ANSI_COLOUR.sub("", log).replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    """Escape control characters including tabs and line feeds, for table cells."""
    return re.sub("[\t\n]", lambda match: _NAMED_ESCAPES[match[0]], printable(text))


def quoted(value: Any) -> str:
    """Format a value for an error message: shortened, URLs redacted, other objects as the name of their type."""
    if isinstance(value, str):
        shown = repr(redact_uris(value) if "?" in value or "://" in value else value)
        return one_line(
            shown if len(shown) <= MAX_QUOTED_LENGTH else f"{shown[: MAX_QUOTED_LENGTH - 4]}...{shown[-1]}"
        )
    if value is None or isinstance(value, bool | int | float):
        is_huge = isinstance(value, int) and value.bit_length() > 256
        return "a huge number" if is_huge else repr(value)
    return f"a {type(value).__name__}"


def first_few(names: Sequence[str], most: int = 3) -> str:
    """List the first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
