"""``lightwell index``: what a dataset holds, looked at by threads of this process or by workers of a Ray cluster; no logic."""

from __future__ import annotations

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
    """How boxes are written beside the images of a source."""

    auto = "auto"
    none = "none"
    coco = "coco"
    yolo = "yolo"
    voc = "voc"


CpusPerReader = Annotated[
    float | None,
    typer.Option(
        "--cpus-per-worker", help="CPUs that one worker holds, with two threads for each; 1 without it."
    ),
]


def index(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder with a folder for each class, a flat folder, a CSV/Parquet table, .tar shards (a folder, a glob "
            "or {000..009}), or COCO, YOLO or VOC annotations; a path or a URI such as s3://bucket/photos."
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="Where to write the index: a path or a URI.")
    ] = "index.parquet",
    path_column: Annotated[str, typer.Option(help="A table's column with the paths.")] = "path",
    label_column: Annotated[
        str, typer.Option(help="A table's column with the labels, or a field of the .json in shards.")
    ] = "label",
    root: Annotated[
        str | None, typer.Option(help="Where a table's relative paths start; by default its folder.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Shares of the splits, where the source has none.")
    ] = "train=0.8,val=0.1,test=0.1",
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    labels: Annotated[
        LabelChoice,
        typer.Option(
            help="Whether labels are text or class numbers. auto: numbers where all are plain whole numbers that can be "
            "class numbers (no 007, 1e5 or 20231101)."
        ),
    ] = LabelChoice.auto,
    label_separator: Annotated[
        str | None,
        typer.Option(help="What parts several labels of one image in a cell; | without it. '' for none."),
    ] = None,
    label_columns: Annotated[
        str, typer.Option(help="A table's columns with 1 and 0, one for each class: cat,dog,bird.")
    ] = "",
    annotations: Annotated[
        AnnotationChoice,
        typer.Option(
            help="How boxes are written: a COCO .json, a YOLO data.yaml or folder, a Pascal VOC folder. auto tells them by "
            "name and layout; none reads a folder by its classes alone."
        ),
    ] = AnnotationChoice.auto,
    allow_protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="A protocol of URIs that may be read beside s3, gs, az, http and the like; repeatable."
        ),
    ] = None,
    forbid_private_addresses: Annotated[
        bool,
        typer.Option(
            "--forbid-private-addresses", help="Read no HTTP address of a private network or of this machine."
        ),
    ] = False,
    hash_content: Annotated[
        bool, typer.Option("--hash", help="Read all of every file; damage shows when it is used.")
    ] = False,
    max_wait: Annotated[float, typer.Option(help="Seconds without an answer before a source is down.")] = 30,
    engine: EngineOption = EngineName.local,
    address: Address = None,
    workers: Workers = 0,
    cpus_per_worker: CpusPerReader = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """List every image of a source with what its header says; a second run reads only what changed.

    Run again after it was interrupted, it goes on from there.

    Example: lightwell index photos -o index.parquet
    Example: lightwell index annotations/instances_val2017.json --root val2017 -o index.parquet
    Example: lightwell index 's3://bucket/train-{000..099}.tar' -o index.parquet --engine ray --address auto
    """
    configure_logging(quiet=quiet)
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


def run_index(source: Path | str, output: Path | str, *, shares: str, quiet: bool, **options: Any) -> Any:
    """Build an index beside an older one, write it, and delete what was kept for a run that is interrupted."""
    from ..pipeline.index.build import build_index
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
        built.save(target.path)
        checkpoint.clear()
        target.publish()
    return built


def open_readers(
    engine: EngineName, *, address: str | None, workers: int, cpus_per_worker: float | None
) -> Any:
    """Build what looks at files where the options say; nothing is started yet. None is threads of this process.

    Raises:
        RequestError: options that do not belong together, or that cannot be.
    """
    found = open_engine(engine, address=address, workers=workers, cpus_per_worker=cpus_per_worker)
    if engine is EngineName.local:
        return None
    from ..workers.ray.index_readers import RayReaders

    return RayReaders(found.address, found.num_workers, found.per_worker.with_defaults(None))


def print_counts(built: Any, output: Path | str) -> None:
    """Print what an index holds."""
    from ..pipeline.index.summary import remark_lines, unusable_rows, usable_rows

    print_table(*usable_rows(built))
    header, rows = unusable_rows(built)
    if rows:
        print_table(header, rows)
    bad = sum(int(row[-1].replace(",", "")) for row in rows)
    for line in remark_lines(built):
        print(line)
    told = f", {bad:,} of them cannot be used (the column 'status' says why)" if bad else ""
    print(f"wrote {output}: {len(built):,} samples{told}")
