"""The ``lightwell`` command. Exit codes: 0 success, 1 run failed, 2 invalid request, 3 a --fail-on gate failed."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from typing import Annotated

import typer

from . import cache, new, serve, submit
from .audit import audit
from .bench import bench
from .demo import demo
from .diff import diff
from .doctor import doctor
from .embed import embed
from .explain import explain
from .export import export
from .index import index
from .init import init
from .inspect import inspect
from .materialize import materialize
from .models import models
from .prediction import evaluate, predict
from .preview import preview
from .report import report
from .train import train

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Image pipelines for training, inference and Grad-CAM audits.\n\nExample: lightwell init photos",
)

REDELIVERY_DELAY_S = 0.05
"""Delay in seconds before a discarded Ctrl-C is redelivered."""
INTERRUPTED = 130
"""Exit code that typer uses for Ctrl-C."""


def _print_version(enabled: bool) -> None:
    if enabled:
        from importlib.metadata import version

        print(f"lightwell {version('lightwell')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Parse the global options."""


for command in (
    init,
    index,
    inspect,
    explain,
    preview,
    models,
    train,
    predict,
    evaluate,
    export,
    audit,
    embed,
    report,
    diff,
    materialize,
    submit.submit,
    serve.serve,
    demo,
    doctor,
    bench,
):
    app.command()(command)
for group, name in (
    (cache.app, "cache"),
    (new.app, "new"),
    (submit.jobs_app, "jobs"),
    (serve.services_app, "services"),
):
    app.add_typer(group, name=name)


def redeliver_interrupts() -> None:
    """Redeliver a Ctrl-C that Python discards because it arrived in a destructor or while closing a generator."""
    previous_hook = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            # Delayed: if raised here, it would be discarded too.
            main_thread_signal = threading.main_thread().ident, signal.SIGINT
            threading.Timer(REDELIVERY_DELAY_S, signal.pthread_kill, main_thread_signal).start()
        else:
            previous_hook(unraisable)

    sys.unraisablehook = hook


def main() -> None:
    """Run the command line; print errors in one line and set the exit code."""
    from ..pipeline.errors import LightwellError, SampleTimeoutError

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    redeliver_interrupts()
    try:
        app()
    except SampleTimeoutError as error:  # the thread that timed out would keep the process alive
        print(f"error: {error}", file=sys.stderr, flush=True)  # already escaped
        os._exit(error.exit_code)
    except LightwellError as error:
        _fail(f"error: {error}", error.exit_code)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:
            raise
        _fail("interrupted; finished work is kept: run the same command again to resume", 1)
    except Exception as error:
        if os.environ.get("LIGHTWELL_DEBUG"):
            raise
        _fail(
            f"error: {type(error).__name__}: {' '.join(str(error).split())}; set LIGHTWELL_DEBUG=1 for the traceback",
            1,
        )


def _fail(line: str, code: int) -> None:
    from ..pipeline.text import printable

    print(printable(line), file=sys.stderr)
    raise SystemExit(code)
