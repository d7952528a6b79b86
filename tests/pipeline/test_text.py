"""Text of other people that is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightwell.pipeline.text import plain_log, printable
from lightwell.workers.submission.log_stream import _Log


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        ("at \x1b[1m\x1b[32mhttp://here\x1b[39m\x1b[22m\n", "at http://here\n"),
        (" 1/3\r 2/3\r 3/3\r\nend\r\n", " 1/3\n 2/3\n 3/3\nend\n"),
        ("\x1b[2J\x1b]0;title\x07\u202e", "\\x1b[2J\\x1b]0;title\\x07\\u202e"),
    ],
)
def test_plain_log_keeps_text_and_strips_colours_and_control_characters(log: str, shown: str) -> None:
    assert plain_log(log) == shown
    assert printable(plain_log(log)) == plain_log(log)


@given(st.lists(st.text(alphabet="a\r\n\x1b[0;m", max_size=8), max_size=8))
def test_a_log_in_pieces_reads_like_the_whole(pieces: list[str]) -> None:
    shown: list[str] = []
    log = _Log(shown.append)
    for piece in pieces:
        log._write_new(piece)
    log.finish("".join(pieces))
    assert "".join(shown) == plain_log("".join(pieces))
