"""``lightwell new``: write files to start from: a plug-in, or a training job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="Write a plug-in or a training job to start from.\n\nExample: lightwell new job outliers",
)

FILES = {
    "job.py": "{name}.py",
    "test_job.py": "test_{name}.py",
    "pyproject.toml": "pyproject.toml",
    "job.yaml": "job.yaml",
}
"""Template and name of each file."""


@app.command()
def job(
    name: Annotated[str, typer.Argument(help="Name of the job and its module, such as outliers.")],
    out: Annotated[str | None, typer.Option(help="New folder (default: the name).")] = None,
) -> None:
    """Write a batch job of three stages with its test, job file and package.

    Example: lightwell new job outliers
    """
    folder = write_job(name, Path(out or name))
    print(f"wrote {', '.join(sorted(path.name for path in folder.iterdir()))} in {folder}")
    print(f"next: cd {folder} && python -m pytest, then lightwell index PHOTOS -o index.parquet")


@app.command()
def recipe(
    name: Annotated[
        str | None, typer.Argument(help="Such as resnet; without it, the names are listed.")
    ] = None,
) -> None:
    """Print a training job as published, or as is usual today, with its source and expected result.

    Example: lightwell new recipe small_data > train.yaml
    """
    from ..models.recipes import read_recipe, recipe_names

    print("\n".join(recipe_names()) if name is None else read_recipe(name).rstrip("\n"))


def write_job(name: str, folder: Path) -> Path:
    """Write the template of a batch job into a new folder; returns it.

    Raises:
        RequestError: the name is not one of a Python module, or the folder is not empty.
        OutputError: a file cannot be written.
    """
    import keyword
    import sys

    from jinja2 import Environment, PackageLoader, StrictUndefined

    from ..pipeline.atomic_io import write_text
    from ..pipeline.errors import RequestError
    from ..pipeline.jobs.stages import STAGE_NAME
    from ..pipeline.text import quoted

    taken = keyword.iskeyword(name) or name in sys.stdlib_module_names or name == "lightwell"
    if not STAGE_NAME.fullmatch(name) or taken:
        raise RequestError(
            f"new job: expected a module name of lower-case letters, digits and '_' that is not taken, got {quoted(name)}; "
            "choose one such as outliers"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(
            f"new job: expected a new or empty folder, got {quoted(str(folder))}; choose another --out"
        )
    words = name.split("_")
    values = {
        "name": name,
        "class_name": "".join(word.capitalize() for word in words),
        "title": " ".join(words).capitalize(),
    }
    environment = Environment(
        loader=PackageLoader(__package__, "job_template"), undefined=StrictUndefined, keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - the values are module names
    )  # fmt: skip
    for template, target in FILES.items():
        text = environment.get_template(f"{template}.jinja").render(values)
        write_text(folder / target.format(name=name), text)
    return folder
