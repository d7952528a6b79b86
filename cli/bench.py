"""``lightwell bench``: run the benchmarks of a source checkout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

NAMES = (
    "cold",
    "large",
    "cached",
    "index",
    "memory",
    "accuracy",
    "ray",
    "probe",
    "inspect",
    "train",
    "gradcam",
    "planted",
    "defects",
    "all",
)


def _names(incomplete: str) -> list[str]:
    """Complete the name of a benchmark."""
    return [name for name in NAMES if name.startswith(incomplete)]


def bench(
    data: Annotated[Path, typer.Option("--data", help="Folder of photos; read only.")],
    name: Annotated[
        str,
        typer.Argument(help=f"Benchmark: {', '.join(NAMES[:-1])} or {NAMES[-1]}.", autocompletion=_names),
    ] = "all",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the results to this JSON file.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Measured seconds per run.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=5, help="Runs per contestant.")] = 5,
    only: Annotated[list[str] | None, typer.Option(help="Run this contestant only; repeatable.")] = None,
) -> None:
    """Benchmark Lightwell against other data loaders on your own photos; needs a source checkout.

    Example: lightwell bench cold --data photos --json cold.json
    """
    from importlib import import_module

    from ..pipeline.errors import RequestError

    tests = Path(__file__).resolve().parents[1] / "tests"
    if not (tests / "benchmarks").is_dir():
        raise RequestError(
            "bench: expected a source checkout, got an installed package without benchmarks; "
            "clone the repository and run `make bench DATA=dir` there"
        )
    sys.path.insert(0, str(tests))
    import_module("benchmarks.command").run(
        name, data, json_file, seconds=seconds, rounds=rounds, only=only or ()
    )
