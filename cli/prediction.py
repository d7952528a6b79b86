"""``lightwell predict`` and ``lightwell evaluate``: a trained model on other images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .engine import engine_options, open_engine
from .options import (
    Address,
    AllowImport,
    CpusPerWorker,
    EngineName,
    EngineOption,
    GpusPerWorker,
    JobWorkers,
    Json,
    Memory,
    Out,
    Placement,
    PlacementName,
    Quiet,
    Threads,
    Workers,
)
from .output import configure_logging, print_json, print_table

if TYPE_CHECKING:
    from ..pipeline.plan.plan import Plan

Checkpoint = Annotated[Path, typer.Argument(help="Checkpoint of a training, such as train/best.safetensors.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images per batch, where no plan is given.")]
Tta = Annotated[
    str,
    typer.Option(
        help="Test-time augmentation: none, flip (mirror images), or a number of views that a given plan's `augment` draws."
    ),
]
Device = Annotated[str, typer.Option(help="torch device of the model; auto uses a GPU if available.")]


def predict(
    checkpoint: Checkpoint,
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Image files; or a folder, a table, tar shards, an index (.parquet) or a plan (.yaml)."
        ),
    ],
    out: Out,
    split: Annotated[str | None, typer.Option(help="Split of the index to predict (default: all).")] = None,
    tta: Tta = "none",
    batch_size: BatchSize = 64,
    device: Device = "auto",
    engine: EngineOption = EngineName.local,
    threads: Threads = 0,
    memory: Memory = None,
    address: Address = None,
    workers: Workers = 0,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = None,
    placement: Placement = PlacementName.colocated,
    job_workers: JobWorkers = 1,
    allow_import: AllowImport = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Predict images with the preprocessing in the checkpoint; write predictions.parquet and predictions.csv.

    Images that cannot be read are listed there with the reason. A segmentation network writes masks/*.png beside them, of the
    size of the pictures, and the share of each class.

    Example: lightwell predict runs/cells/best.safetensors photos --out runs/predictions
    Example: lightwell predict runs/cells/best.safetensors a.jpg b.png --out runs/predictions --tta flip
    """
    from ..models.inference.predict import Predict

    options = engine_options(locals())
    configure_logging(quiet=quiet)
    with open_plan(checkpoint, sources, batch_size=batch_size, allow_import=allow_import or ()) as plan:
        keys = {"split": split, "tta": parse_tta(tta), "device": device}
        found = _run(Predict, plan, checkpoint, out, keys, options, sources, quiet=quiet or as_json)
    if as_json:
        print_json(found)
    elif not quiet:
        if "shares" in found:
            rows = [[name, f"{100 * share:.2f} %"] for name, share in found["shares"].items()]
            print_table(["class", "share of pixels"], rows)
            _print_warnings(found)
        else:
            rows = [[name, f"{count:,}"] for name, count in found["classes"].items()]
            print_table(["class", "images"], rows)
        print(
            f"predicted {found['predicted']:,} of {found['images']:,} images into {out.rstrip('/')}/predictions.csv"
        )


def evaluate(
    checkpoint: Checkpoint,
    out: Out,
    data: Annotated[
        str | None,
        typer.Argument(
            help="Plan or job file (.yaml), index (.parquet), or a source to index: a folder, a table (default: the index of the "
            "training)."
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Split to evaluate; empty for all images of the index.")
    ] = "test",
    tta: Tta = "none",
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Bootstrap samples of the intervals; 0 for none.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    engine: EngineOption = EngineName.local,
    threads: Threads = 0,
    memory: Memory = None,
    address: Address = None,
    workers: Workers = 0,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = None,
    placement: Placement = PlacementName.colocated,
    job_workers: JobWorkers = 1,
    allow_import: AllowImport = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Evaluate a checkpoint: metrics with intervals and by class; of one class per image also confusion matrix and calibration.

    Images of an index are prepared by the transforms in the checkpoint, those of a plan by the plan.

    Example: lightwell evaluate runs/cells/best.safetensors --out runs/evaluation
    Example: lightwell evaluate runs/cells/best.safetensors plan.yaml --out runs/evaluation
    Example: lightwell evaluate runs/cells/best.safetensors index.parquet --split val --tta flip --out runs/evaluation
    """
    from ..models.inference.evaluate import Evaluate
    from ..models.inference.saved import trained_index

    options = engine_options(locals())
    configure_logging(quiet=quiet)
    data = data or str(trained_index(checkpoint))
    with open_plan(checkpoint, [data], batch_size=batch_size, allow_import=allow_import or ()) as plan:
        keys = {
            "split": split or None,
            "tta": parse_tta(tta),
            "device": device,
            "bootstrap": bootstrap,
            "seed": seed,
        }
        found = _run(Evaluate, plan, checkpoint, out, keys, options, [data], quiet=quiet or as_json)
    if as_json:
        print_json(found)
    elif not quiet:
        _print_evaluation(found)
        print(f"wrote the results to {out.rstrip('/')}")


def parse_tta(text: str) -> str | int:
    """Return the value of ``--tta``: a number of views or a word."""
    return int(text) if text.isdecimal() else text


@contextmanager
def open_plan(
    checkpoint: Path, sources: Sequence[str], *, batch_size: int, allow_import: Sequence[str]
) -> Iterator[Plan]:
    """Yield the plan that reads the given sources, with the checkpoint's transforms unless a plan is given.

    Raises:
        SourceError: a source cannot be used, or has no image that can be read.
        ModelError: the checkpoint cannot be read.
        PlanError: the plan of the file or of the checkpoint is invalid.
    """
    from ..models.inference.saved import plan_of
    from ..pipeline.index.build import build_index, index_files
    from ..pipeline.index.index import Index
    from ..pipeline.jobs.job_file import load_plan

    first = sources[0]
    if len(sources) == 1 and first.endswith((".yaml", ".yml")):
        plan = load_plan(Path(first), allow_import=allow_import)
        yield plan.model_copy(update={"sampling": None, "mix": None})
        return
    keys: dict[str, Any] = {
        "batch_size": batch_size,
        "allow_import": allow_import,
        "errors": {"on_error": "skip", "max_bad_share": None},
    }
    if len(sources) == 1 and _is_index(Path(first)):
        yield plan_of(checkpoint, Path(first), **keys)
        return
    plan_of(checkpoint, Path("index.parquet"), **keys)  # refused before the images are listed
    one = len(sources) == 1 and not Path(first).is_file()
    table = len(sources) == 1 and first.lower().endswith((".csv", ".parquet", ".tar"))
    index: Index = build_index(first) if one or table else index_files([*dict.fromkeys(sources)])
    index.rows()
    with tempfile.TemporaryDirectory(prefix="lightwell-") as folder:
        path = Path(folder) / "index.parquet"
        index.save(path)
        yield plan_of(checkpoint, path, **keys)


def _is_index(path: Path) -> bool:
    """Return whether a file is a Parquet file with the columns of an index."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    try:
        names = set(pq.read_schema(path).names)
    except (OSError, pa.ArrowException):
        return False
    return {"key", "uri", "status", "width"} <= names


def _run(
    job: Any,
    plan: Plan,
    checkpoint: Path,
    out: str,
    keys: dict[str, Any],
    options: dict[str, Any],
    reads: Sequence[str],
    *,
    quiet: bool,
) -> Any:
    from ..pipeline.config.checked_model import build_checked
    from ..pipeline.jobs.progress import console_for
    from ..workers.local import run_batch_job

    console = console_for(quiet=quiet)
    built = build_checked(
        job,
        {"plan": plan, "checkpoint": str(checkpoint), **keys},
        where=job.__name__.lower(),
        folder=Path(),
    )
    for line in built.plan_warnings():
        console.print(f"warning: {line}")
    local = [source for source in reads if "://" not in source]
    return run_batch_job(built, open_engine(**options), out, console, reads=[checkpoint, *local])


METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "auroc",
    "map": "mAP",
    "f1": "F1 at 0.5",
    "f1_at_thresholds": "F1 at thresholds",
    "miou": "mIoU",
    "dice": "Dice",
    "pixel_accuracy": "pixel accuracy",
    "loss": "loss",
}
"""Metrics that are shown, by their names in evaluation.json."""


def _print_evaluation(found: Any) -> None:
    rows = []
    for name, label in METRICS.items():
        if name in found:
            value, limits = found[name], found["intervals"].get(name)
            shown = "undefined" if value is None else f"{value:.4f}"
            rows.append([label, shown, f"{limits[0]:.4f} to {limits[1]:.4f}" if limits else ""])
    if "calibration" in found:
        rows.append(["ECE", f"{found['calibration']['ece']:.4f}", ""])
    print_table(["metric", "value", "95 % interval"], rows)
    _print_warnings(found)


def _print_warnings(found: Any) -> None:
    for line in found["warnings"]:
        print(f"warning: {line}")
