"""``lightwell report``: write the results of a finished batch job again, from its records."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from .options import AllowImport, Json, Quiet
from .output import configure_logging, print_json


def report(
    folder: Annotated[
        str, typer.Argument(help="Output folder of a finished run, or a URI such as s3://bucket/audit.")
    ],
    title: Annotated[str | None, typer.Option(help="Title of the report (default: as in the run).")] = None,
    allow_import: AllowImport = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write the report of a finished run again, in seconds: neither images nor model are read.

    The job is taken from stages/job.yaml in the folder, where its title can be edited, too.

    Example: lightwell report runs/cells/audit --title "Cells, second review"
    """
    from ..pipeline.jobs.progress import console_for
    from ..pipeline.runtime.local_engine import LocalEngine
    from ..workers.local import rewrite_results
    from ..workers.saved_job import load_saved_job

    configure_logging(quiet=quiet)
    started = time.monotonic()
    changes = {} if title is None else {"title": title}
    job = load_saved_job(folder, allow_import=allow_import or (), changes=changes)
    found = rewrite_results(job, LocalEngine(), folder, console_for(quiet=quiet or as_json))
    if as_json:
        print_json(found)
    elif not quiet:
        seconds = time.monotonic() - started
        print(
            f"wrote the results of {type(job).__name__} in {folder.rstrip('/')} again, in {seconds:.1f} seconds"
        )
