"""What every test may use, and which tests this machine can run."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from faults import note_fault, table_of
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# Before anything imports them: no look-up of newer versions, and figures without a display.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

# Clusters of one test run share a token of their own: Ray's ports are open to the network.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))

# A shell that runs the tests in the background lets them ignore interrupts, which commands started here would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, so that a red run is about the change; `HYPOTHESIS_PROFILE=random` looks further.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("random", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@cache
def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked ``gpu`` where there is none."""
    if item.get_closest_marker("gpu") and not _has_gpu():
        pytest.skip("needs an NVIDIA GPU")
    note_fault(item)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was done to the runs of this session and what they lost."""
    outcomes = ("passed", "failed")
    reports = [(name, one) for name in outcomes for one in terminalreporter.getreports(name)]
    for line in table_of(reports):
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _level_of_the_log() -> Iterator[None]:
    """Undo what ``--quiet`` does to the log of a process, where a command runs in this one."""
    log = logging.getLogger("lightwell")
    level = log.level
    yield
    log.setLevel(level)


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def project_files() -> tuple[str, ...]:
    """List the files of the project, relative to its root: all that git has or would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = sorted(name for name in set(listed.split("\0")) - {""} if (ROOT / name).is_file())
    assert names, "git lists no files"
    return tuple(names)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Find the browser that opens reports; in continuous integration it has to be there."""
    found = shutil.which("chromium")
    if found is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("expected chromium on PATH, got none; install it")
    assert found is not None
    return found
