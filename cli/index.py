"""``lightwell index``: build the index of a dataset, with threads or with Ray workers."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .engine import open_engine
from .options import Address, EngineName, EngineOption, Json, Quiet, Workers
from .output import configure_logging, print_json, print_table


class LabelChoice(StrEnum):
    """Values of ``--labels``."""

    auto = "auto"
    text = "text"
    numbers = "numbers"


class AnnotationChoice(StrEnum):
    """Values of ``--annotations``."""

    auto = "auto"
    none = "none"
    coco = "coco"
    yolo = "yolo"
    voc = "voc"


CpusPerReader = Annotated[
    float | None,
    typer.Option("--cpus-per-worker", help="On Ray: CPUs per worker, with two threads each (default: 1)."),
]


def index(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder with one subfolder per class, flat folder, CSV or Parquet table, .tar shards (folder, glob or "
            "{000..009}), or COCO, YOLO or VOC annotations; a path or a URI such as s3://bucket/photos."
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="Output file: a path or a URI.")
    ] = "index.parquet",
    path_column: Annotated[str, typer.Option(help="Table column of the image paths.")] = "path",
    label_column: Annotated[
        str, typer.Option(help="Table column of the labels, or field of the .json files in shards.")
    ] = "label",
    root: Annotated[
        str | None, typer.Option(help="Root of relative paths in a table (default: the folder of the table).")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Split fractions, if the source defines no splits.")
    ] = "train=0.8,val=0.1,test=0.1",
    seed: Annotated[int, typer.Option(help="Random seed of the split.")] = 0,
    labels: Annotated[
        LabelChoice,
        typer.Option(
            help="Type of the labels: text or class numbers. auto: numbers if all labels are plain integers that can be "
            "class numbers (not 007, 1e5 or 20231101)."
        ),
    ] = LabelChoice.auto,
    label_separator: Annotated[
        str | None,
        typer.Option(help="Separator of multiple labels of an image in one cell (default: |); '' for none."),
    ] = None,
    label_columns: Annotated[
        str, typer.Option(help="Table columns with 0 or 1 per class, such as cat,dog,bird.")
    ] = "",
    annotations: Annotated[
        AnnotationChoice,
        typer.Option(
            help="Annotation format: COCO .json, YOLO data.yaml or folder, or Pascal VOC folder. auto: detect by name and "
            "layout; none: ignore annotations."
        ),
    ] = AnnotationChoice.auto,
    allow_protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="Allow this URI protocol in addition to s3, gs, az, http and the like; repeatable."
        ),
    ] = None,
    forbid_private_addresses: Annotated[
        bool,
        typer.Option(
            "--forbid-private-addresses",
            help="Reject HTTP addresses of private networks and of this machine.",
        ),
    ] = False,
    apply: Annotated[
        Path | None,
        typer.Option(
            metavar="FIXES.csv",
            help="Apply a fix list of `lightwell inspect` to SOURCE, an index: drop, relabel, move to another split.",
        ),
    ] = None,
    hash_content: Annotated[
        bool, typer.Option("--hash", help="Read and hash whole files, to detect later changes.")
    ] = False,
    max_wait: Annotated[
        float, typer.Option(help="Seconds without a response before a source counts as unavailable.")
    ] = 30,
    engine: EngineOption = EngineName.local,
    address: Address = None,
    workers: Workers = 0,
    cpus_per_worker: CpusPerReader = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Index the images of a dataset by reading their headers; later runs read new and changed files only.

    An interrupted run is resumed by running the same command again.

    Example: lightwell index photos -o index.parquet
    Example: lightwell index annotations/instances_val2017.json --root val2017 -o index.parquet
    Example: lightwell index index.parquet --apply fixes.csv -o fixed.parquet
    Example: lightwell index 's3://bucket/train-{000..099}.tar' -o index.parquet --engine ray --address auto
    """
    configure_logging(quiet=quiet)
    if apply is not None:
        fixed = _apply_fixes(apply, source, output)
        if as_json:
            print_json(fixed.summary())
        elif not quiet:
            print_counts(fixed, output)
        return
    built = run_index(
        source,
        output,
        shares=split,
        quiet=quiet or as_json,
        seed=seed,
        path_column=path_column,
        label_column=label_column,
        root=root,
        label_kind=labels.value,
        label_separator=label_separator,
        label_columns=[name.strip() for name in label_columns.split(",") if name.strip()],
        annotations=annotations.value,
        allow_protocols=allow_protocol or (),
        forbid_private_addresses=forbid_private_addresses or None,
        hash_content=hash_content,
        max_wait_s=max_wait,
        readers=open_readers(engine, address=address, workers=workers, cpus_per_worker=cpus_per_worker),
    )
    if as_json:
        print_json(built.summary())
    elif not quiet:
        print_counts(built, output)


def run_index(
    source: Path | str,
    output: Path | str,
    *,
    shares: str,
    quiet: bool,
    choose_seed: Callable[[Any], int] | None = None,
    **options: Any,
) -> Any:
    """Build and save an index, reusing rows of an existing one, and delete the scan checkpoint.

    ``choose_seed`` may return another seed for the splits.
    """
    from ..pipeline.index.build import build_index, with_split_seed
    from ..pipeline.index.scan_checkpoint import ScanCheckpoint
    from ..pipeline.index.splits import parse_fractions
    from ..pipeline.jobs.progress import console_for
    from ..workers.index_file import open_index_file

    console = console_for(quiet=quiet)
    with open_index_file(output, reads=[source]) as target:
        checkpoint = ScanCheckpoint(target.path, report=console.print)
        built = build_index(
            source,
            fractions=parse_fractions(shares),
            previous=target.previous,
            progress=console.count("headers"),
            checkpoint=checkpoint,
            **options,
        )
        if choose_seed is not None and (seed := choose_seed(built)) != built.source.get("seed", 0):
            built = with_split_seed(built, seed, target.previous)
        built.save(target.path)
        checkpoint.clear()
        target.publish()
    return built


def _apply_fixes(fixes: Path, index: str, output: str) -> Any:
    """Save an index with the changes of a fix list; returns it."""
    from ..models.audits.dataset.fix_list import apply_fixes, read_fixes
    from ..pipeline.index.index import Index
    from ..workers.index_file import open_index_file

    rows, before = read_fixes(fixes), Index.load(index)
    fixed = apply_fixes(before, rows)
    with open_index_file(output, reads=[index, fixes]) as target:
        fixed.save(target.path)
        target.publish()
    return fixed


def open_readers(
    engine: EngineName, *, address: str | None, workers: int, cpus_per_worker: float | None
) -> Any:
    """Build the header readers for the given options, without starting them; None for local threads.

    Raises:
        RequestError: options conflict or are invalid.
    """
    found = open_engine(engine, address=address, workers=workers, cpus_per_worker=cpus_per_worker)
    if engine is EngineName.local:
        return None
    from ..workers.ray.index_readers import RayReaders

    return RayReaders(found.address, found.num_workers, found.per_worker.with_defaults(None))


def print_counts(built: Any, output: Path | str) -> None:
    """Print a summary of an index."""
    from ..pipeline.index.summary import remark_lines, unusable_rows, usable_rows

    print_table(*usable_rows(built))
    header, rows = unusable_rows(built)
    if rows:
        print_table(header, rows)
    bad = sum(int(row[-1].replace(",", "")) for row in rows)
    for line in remark_lines(built):
        print(line)
    unusable = f", {bad:,} of them unusable (see column 'status')" if bad else ""
    print(f"wrote {output}: {len(built):,} samples{unusable}")
