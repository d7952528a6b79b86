"""The ``lightwell`` command in this process: the same exit codes and output as in its own, without its imports."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path

from lightwell.cli.app import main


def lightwell(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command line and return its exit code and what it printed.

    Signals, imports, file descriptors and the end of the interpreter are those of a process: start one to test them.
    """
    argv = ["lightwell", *map(str, words)]
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    before = sys.argv, sys.unraisablehook
    sys.argv = argv
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            contextlib.chdir(cwd or Path.cwd()),
        ):
            main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv, sys.unraisablehook = before
    return subprocess.CompletedProcess(argv, code, *map(_printed, (out, err)))


def _printed(stream: io.TextIOWrapper) -> str:
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()
