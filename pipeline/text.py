"""Text from files and other people, made safe to show: in messages, in tables and on a terminal."""

from __future__ import annotations

import re
from typing import Any

from .uris import redact_uris

MAX_SHOWN = 80
"""Characters of a value that an error message shows."""

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""Control characters but tab and line feed, characters that reorder or hide text, and lone surrogates."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""Select graphic rendition (ECMA-48, section 8.3.117)."""
_SHORT = {"\t": "\\t", "\n": "\\n"}


def printable(text: str) -> str:
    """Replace characters that a terminal acts upon, or that hide text, by their escapes.

    Tabs and line feeds stay; everything that is printed goes through here.
    """
    return _UNSAFE.sub(_escaped, text) if not text.isascii() or not text.isprintable() else text


def plain_log(log: str) -> str:
    """Take the colours out of a program's log and make the rest printable; the steps of a progress bar become lines."""
    return printable(_COLOUR.sub("", log).replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    """Make text printable, and its tabs and line feeds visible: for a cell of a table."""
    return re.sub("[\t\n]", lambda match: _SHORT[match[0]], printable(text))


def quoted(value: Any) -> str:
    """Show a value in an error message: plain values shortened, URLs without secrets, others as the name of their type."""
    if isinstance(value, str):
        shown = repr(redact_uris(value) if "?" in value or "://" in value else value)
        return one_line(shown if len(shown) <= MAX_SHOWN else f"{shown[: MAX_SHOWN - 4]}...{shown[-1]}")
    if value is None or isinstance(value, bool | int | float):
        is_huge = isinstance(value, int) and value.bit_length() > 256
        return "a huge number" if is_huge else repr(value)
    return f"a {type(value).__name__}"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
