"""Shared fixtures, and skipping of tests that this machine cannot run."""

from __future__ import annotations

import gc
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
from snapshot import Snapshots

ROOT = Path(__file__).resolve().parents[1]

# Set before the first import: no online version check, and figures without a display.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

# One thread per process for the tensors of tests, which are too small to be shared out among threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A token for the clusters of this test run: Ray's ports are open to the network.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))

# What is imported stays: the collector looks for garbage among what tests make, and less often than by default.
gc.disable()
gc.set_threshold(20_000, 20, 20)

# Tests in the background of a shell ignore interrupts, which subprocesses would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, so that a failure is due to a change; `HYPOTHESIS_PROFILE=random` tries others.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("random", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that rewrites snapshots."""
    parser.addoption(
        "--update-snapshots", action="store_true", help="Write tests/snapshots anew instead of comparing."
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Share out the tests among the processes of `make test` by file."""
    from sharing_out import ByFile

    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest where several processes share the tests."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        from sharing_out import turn

        items.sort(key=lambda item: turn(item.nodeid.partition("::")[0]))


def pytest_collection_finish() -> None:
    """Exempt what has been imported from garbage collection; DALI's graphs are built without traces in `make test`.

    Recording where each operator was made takes a fifth of building a graph.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        from nvidia.dali._utils.dali_trace import set_tracing

        set_tracing(enabled=False)
    gc.collect()
    gc.freeze()
    gc.enable()


@cache
def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked ``gpu`` if there is no GPU."""
    if item.get_closest_marker("gpu") and not _has_gpu():
        pytest.skip("needs an NVIDIA GPU")
    note_fault(item)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the faults injected in this session and their effects."""
    outcomes = ("passed", "failed")
    reports = [(name, one) for name in outcomes for one in terminalreporter.getreports(name)]
    for line in table_of(reports):
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _restore_log_level() -> Iterator[None]:
    """Restore the log level, which ``--quiet`` changes when a command runs in this process."""
    log = logging.getLogger("lightwell")
    level = log.level
    yield
    log.setLevel(level)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures of trainings empty, for tests that do not look at them: drawing takes half of a small training."""
    from lightwell.models.training import results

    for name in ("write_confusion", "write_curves", "write_reliability"):
        monkeypatch.setattr(results, name, lambda path, *_: path.touch())


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def project_files() -> tuple[str, ...]:
    """Return the tracked and untracked files of the project, without ignored ones, relative to its root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = sorted(name for name in set(listed.split("\0")) - {""} if (ROOT / name).is_file())
    assert names, "git lists no files"
    return tuple(names)


@pytest.fixture(scope="session")
def snapshots(pytestconfig: pytest.Config) -> Snapshots:
    """Return the stored texts of ``tests/snapshots``."""
    return Snapshots(update=bool(pytestconfig.getoption("update_snapshots")))


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of the browser that opens reports; required in continuous integration."""
    found = shutil.which("chromium")
    if found is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("expected chromium on PATH, got none; install it")
    assert found is not None
    return found
