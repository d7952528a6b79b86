"""``lightwell preview``: a page with augmented versions of some images of a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import AllowImport, Quiet
from .output import configure_logging


def preview(
    plan: Annotated[Path, typer.Argument(help="A plan, or a job file with a plan in it.")],
    out: Annotated[Path, typer.Option("--out", help="The page to write.")],
    samples: Annotated[int, typer.Option(help="How many samples, over all classes.")] = 8,
    versions: Annotated[int, typer.Option(help="Versions of each: as epochs 0, 1, 2 and so on see it.")] = 4,
    split: Annotated[
        str | None, typer.Option(help="To choose from; train without it, or all where there is none.")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Chooses other samples; augmentation follows the plan's own seed.")
    ] = 0,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", help="A sample to show, instead of a choice. May be repeated."),
    ] = None,
    allow_import: AllowImport = None,
    quiet: Quiet = False,
) -> None:
    """Write a page of samples beside what training and evaluation read, and what each step did.

    Example: lightwell preview plan.yaml --out preview.html
    """
    from ..pipeline.jobs.job_file import load_plan
    from ..pipeline.preview.preview import preview as make_preview

    configure_logging(quiet=quiet)
    written = load_plan(plan, allow_import=allow_import or ())
    found = make_preview(
        written, samples=samples, versions=versions, split=split, seed=seed, keys=key, name=plan.name
    )
    num_bytes = found.save(out)
    if not quiet:
        num_failed = sum(one.failed is not None for one in found.samples)
        failed = f", {num_failed} of them unusable" if num_failed else ""
        print(f"wrote {out}: {len(found.samples)} samples{failed}, {num_bytes / 1e6:.1f} MB")
