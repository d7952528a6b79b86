"""``lightwell init``: from a folder of images to an index, a plan and job files that run; no logic."""

from __future__ import annotations

from typing import Annotated

import typer

from .index import AnnotationChoice, print_counts, run_index
from .options import Json, Quiet
from .output import configure_logging, print_json


def init(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder with a folder for each class, or whatever `lightwell index` takes: a flat folder, a CSV/Parquet "
            "table, .tar shards, COCO, YOLO or VOC annotations."
        ),
    ],
    model: Annotated[
        str,
        typer.Option(help="A classifier of torchvision or timm, whose weights say how images are prepared."),
    ] = "resnet50",
    weights: Annotated[
        str, typer.Option(help="default (the published ones), the path of a file, package:NAME, or none.")
    ] = "default",
    out: Annotated[
        str | None,
        typer.Option("--out", help="Folder for the files; runs/NAME without it, never among the images."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace files that were changed or are not ours; the old ones are kept as NAME.old.",
        ),
    ] = False,
    root: Annotated[
        str | None, typer.Option(help="Where a table's relative paths start; by default its folder.")
    ] = None,
    path_column: Annotated[str, typer.Option(help="A table's column with the paths.")] = "path",
    label_column: Annotated[
        str, typer.Option(help="A table's column with the labels, or a field of the .json in shards.")
    ] = "label",
    split: Annotated[
        str, typer.Option(help="Shares of the splits, where the source has none.")
    ] = "train=0.8,val=0.1,test=0.1",
    annotations: Annotated[
        AnnotationChoice, typer.Option(help="How boxes are written; auto tells them by name and layout.")
    ] = AnnotationChoice.auto,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Index a data set and write plan.yaml, train.yaml and audit.yaml, ready to run.

    Run again, it looks only at what changed, and leaves files alone that you have changed.

    Example: lightwell init photos
    Example: lightwell init photos --model timm:vit_small_patch16_224 --out runs/vit
    """
    from ..models.quickstart.dataset import better_seed
    from ..models.quickstart.first_run import (
        FirstRun,
        index_path,
        index_state,
        load_existing_index,
        model_spec,
    )
    from ..models.quickstart.folder import check_location, default_folder, open_init_folder, write_files
    from ..models.zoo.data_config import data_config
    from ..pipeline.text import printable
    from ..workers.output_store import local_folder

    configure_logging(quiet=quiet)
    spec = model_spec(model, weights)
    data_config(spec)  # a wrong name fails before the images are looked at
    folder = default_folder(source) if out is None else local_folder(out)
    check_location(folder, source)
    with open_init_folder(folder, source, force=force) as opened:
        before, path = load_existing_index(folder), index_path(folder)
        options = {
            "root": root,
            "path_column": path_column,
            "label_column": label_column,
            "annotations": annotations.value,
        }
        seed = 0 if before is None else int(before.source.get("seed", 0))
        built = run_index(
            source, path, shares=split, quiet=quiet or as_json, choose_seed=better_seed, seed=seed, **options
        )
        first = FirstRun.of(built, spec)
        done = {path.name: index_state(before, built), **write_files(opened, first.texts(), source)}
    if as_json:
        print_json(first.as_dict(folder, done))
    elif not quiet:
        print_counts(built, path)
        for line in first.lines(folder, done):
            print(printable(line))
