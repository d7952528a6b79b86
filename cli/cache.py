"""``lightwell cache``: list, verify and prune image caches."""

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
    help="List, verify and prune an image cache; safe while runs use it.\n\n"
    "Example: lightwell cache ls runs/pixels",
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Cache folder, the `cache.dir` of a plan.")]

SECONDS_PER_DAY = 86_400


@app.command("ls")
def list_command(folder: Folder, as_json: Json = False) -> None:
    """List the contents of a cache, one row per decoding and preprocessing recipe.

    Example: lightwell cache ls runs/pixels
    """
    from datetime import datetime

    from ..pipeline.cache.maintenance import list_recipes

    listings = list_recipes(folder)
    if as_json:
        print_json([asdict(listing) for listing in listings])
        return
    rows = []
    for listing in listings:
        used = (
            ""
            if listing.last_used_s is None
            else f"{datetime.fromtimestamp(listing.last_used_s):%Y-%m-%d %H:%M}"
        )
        damaged = str(listing.damaged) if listing.damaged else ""
        numbers = [f"{listing.shards:,}", f"{listing.pictures:,}", format_bytes(listing.bytes)]
        rows.append([listing.recipe, listing.steps, listing.form, *numbers, used, damaged])
    print_table(["recipe", "steps", "form", "shards", "images", "size", "last used", "damaged"], rows)


@app.command("verify")
def verify_command(
    folder: Folder,
    remove: Annotated[
        bool, typer.Option("--remove", help="Delete damaged shards; their images are cached again.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Verify the checksum of every cached image. Exits with code 1 if damaged shards remain.

    Example: lightwell cache verify runs/pixels --remove
    """
    from ..pipeline.cache.maintenance import verify
    from ..pipeline.errors import RunError

    checked = list(verify(folder, remove=remove))
    damaged = [shard for shard in checked if shard.reason]
    num_images = sum(shard.pictures for shard in checked if not shard.reason)
    if as_json:
        found = [
            {"path": str(shard.path), "reason": shard.reason, "removed": shard.removed} for shard in damaged
        ]
        print_json({"shards": len(checked), "pictures": num_images, "damaged": found})
    else:
        if damaged:
            print_table(
                ["damaged shard", "reason", "removed"],
                [[str(shard.path), shard.reason, "yes" if shard.removed else "no"] for shard in damaged],
            )
        print(f"{len(checked):,} shards, {num_images:,} images verified, {len(damaged):,} shards damaged")
    remaining = [shard for shard in damaged if not shard.removed]
    if remaining:
        raise RunError(
            f"expected intact shards, got {len(remaining)} damaged; run `lightwell cache verify {folder} --remove` to delete them; "
            "their images are cached again when needed"
        )


@app.command("prune")
def prune_command(
    folder: Folder,
    max_bytes: Annotated[
        int | None,
        typer.Option(min=0, help="Delete least recently used shards above this size; 0 deletes everything."),
    ] = None,
    older_than: Annotated[
        float | None, typer.Option(min=0, metavar="DAYS", help="Delete shards not used for this many days.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Delete least recently used shards and unfinished files of dead processes.

    Example: lightwell cache prune runs/pixels --max-bytes 50000000000
    """
    from ..pipeline.cache.maintenance import prune
    from ..pipeline.errors import RequestError

    if max_bytes is None and older_than is None:
        raise RequestError("cache prune: expected --max-bytes or --older-than, got neither; set a limit")
    older_than_s = None if older_than is None else older_than * SECONDS_PER_DAY
    done = prune(folder, max_bytes=max_bytes, older_than_s=older_than_s)
    if as_json:
        print_json(asdict(done))
        return
    rows = [
        ["deleted", f"{done.shards:,}", format_bytes(done.bytes)],
        ["kept", f"{done.kept_shards:,}", format_bytes(done.kept_bytes)],
    ]
    print_table(["", "shards", "size"], rows)
    if done.leftovers:
        print(f"deleted {done.leftovers:,} unfinished files of dead processes")
