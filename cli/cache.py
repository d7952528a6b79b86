"""``lightwell cache``: list, verify and prune what plans have cached."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal as format_bytes

from .options import Json
from .output import print_json, print_table

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="List, verify and prune a cache of pixels; safe while runs use it.\n\n"
    "Example: lightwell cache ls runs/pixels",
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder that a plan has as cache.dir.")]

SECONDS_A_DAY = 86_400


@app.command("ls")
def list_command(folder: Folder, as_json: Json = False) -> None:
    """List what is cached, a row for each way of making pixels.

    Example: lightwell cache ls runs/pixels
    """
    from datetime import datetime

    from ..pipeline.cache.maintenance import list_recipes

    listings = list_recipes(folder)
    if as_json:
        print_json([asdict(one) for one in listings])
        return
    rows = []
    for one in listings:
        used = "" if one.last_used_s is None else f"{datetime.fromtimestamp(one.last_used_s):%Y-%m-%d %H:%M}"
        damaged = str(one.damaged) if one.damaged else ""
        numbers = [f"{one.shards:,}", f"{one.pictures:,}", format_bytes(one.bytes)]
        rows.append([one.recipe, one.steps, one.form, *numbers, used, damaged])
    print_table(["recipe", "steps", "form", "shards", "pictures", "size", "last used", "damaged"], rows)


@app.command("verify")
def verify_command(
    folder: Folder,
    remove: Annotated[
        bool, typer.Option("--remove", help="Delete damaged shards; their pictures are made again.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every picture against its checksum. Exit code 1 where damage was found and is still there.

    Example: lightwell cache verify runs/pixels --remove
    """
    from ..pipeline.cache.maintenance import verify
    from ..pipeline.errors import RunError

    verdicts = list(verify(folder, remove=remove))
    damaged = [one for one in verdicts if one.reason]
    num_pictures = sum(one.pictures for one in verdicts if not one.reason)
    if as_json:
        found = [{"path": str(one.path), "reason": one.reason, "removed": one.removed} for one in damaged]
        print_json({"shards": len(verdicts), "pictures": num_pictures, "damaged": found})
    else:
        if damaged:
            print_table(
                ["damaged shard", "reason", "removed"],
                [[str(one.path), one.reason, "yes" if one.removed else "no"] for one in damaged],
            )
        print(
            f"{len(verdicts):,} shards, {num_pictures:,} pictures as written, {len(damaged):,} shards damaged"
        )
    left = [one for one in damaged if not one.removed]
    if left:
        raise RunError(
            f"expected shards as they were written, got {len(left)} damaged; run "
            f"`lightwell cache verify {folder} --remove`, their pictures are made again when they are expected"
        )


@app.command("prune")
def prune_command(
    folder: Folder,
    max_bytes: Annotated[
        int | None, typer.Option(min=0, help="Bytes that may be left; 0 deletes everything.")
    ] = None,
    older_than: Annotated[
        float | None, typer.Option(min=0, metavar="DAYS", help="Delete shards not used for so many days.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Delete the shards that were used longest ago, and what dead processes left unfinished.

    Example: lightwell cache prune runs/pixels --max-bytes 50000000000
    """
    from ..pipeline.cache.maintenance import prune
    from ..pipeline.errors import RequestError

    if max_bytes is None and older_than is None:
        raise RequestError(
            "cache prune: expected --max-bytes or --older-than, got neither; say what may stay"
        )
    older_than_s = None if older_than is None else older_than * SECONDS_A_DAY
    done = prune(folder, max_bytes=max_bytes, older_than_s=older_than_s)
    if as_json:
        print_json(asdict(done))
        return
    rows = [
        ["deleted", f"{done.shards:,}", format_bytes(done.bytes)],
        ["kept", f"{done.kept_shards:,}", format_bytes(done.kept_bytes)],
    ]
    print_table(["what", "shards", "size"], rows)
    if done.leftovers:
        print(f"and {done.leftovers:,} unfinished files of dead processes")
