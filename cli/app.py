"""The command line. Exit codes: 0 done, 1 the run failed, 2 the request was wrong, 3 findings crossed a gate."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Annotated

import typer

from . import cache, serve, submit
from .audit import audit
from .bench import bench
from .demo import demo
from .doctor import doctor
from .explain import explain
from .index import index
from .init import init
from .materialize import materialize
from .preview import preview
from .train import train

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Carry images down to models, and show what the models looked at.\n\nExample: lightwell init photos",
)

AGAIN_S = 0.05
"""Until a Ctrl-C that was thrown away is delivered again."""
INTERRUPTED = 130
"""What typer makes of Ctrl-C."""


def _print_version(wanted: bool) -> None:
    if wanted:
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
    """Take the options that stand before a command."""


for command in (
    init,
    index,
    explain,
    preview,
    train,
    audit,
    materialize,
    submit.submit,
    serve.serve,
    demo,
    doctor,
    bench,
):
    app.command()(command)
for group, name in ((cache.app, "cache"), (submit.jobs_app, "jobs"), (serve.services_app, "services")):
    app.add_typer(group, name=name)


def redeliver_interrupts() -> None:
    """Deliver a Ctrl-C again that comes where Python throws it away: in a destructor, or while a generator is let go."""
    told = sys.unraisablehook

    def tell(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            # Not at once: it would be raised here, and thrown away as well.
            to_main = threading.main_thread().ident, signal.SIGINT
            threading.Timer(AGAIN_S, signal.pthread_kill, to_main).start()
        else:
            told(unraisable)

    sys.unraisablehook = tell


def main() -> None:
    """Run the command line; every error becomes one line and an exit code."""
    from ..pipeline.errors import LightwellError, SampleTimeoutError

    redeliver_interrupts()
    try:
        app()
    except SampleTimeoutError as error:  # its thread would keep this process for ever
        print(f"error: {error}", file=sys.stderr, flush=True)  # its text is printable
        os._exit(error.exit_code)
    except LightwellError as error:
        _fail(f"error: {error}", error.exit_code)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:
            raise
        _fail("interrupted; what was finished is kept: run the same command again to go on", 1)
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
