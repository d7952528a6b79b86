"""Training recipes: job files to copy, each with its source and its expected result."""

from __future__ import annotations

from importlib.resources import files

from ...pipeline.errors import RequestError, did_you_mean

SUFFIX = ".yaml"


def recipe_names() -> tuple[str, ...]:
    """List the recipes."""
    found = (item.name for item in files(__package__).iterdir())
    return tuple(sorted(name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX)))


def read_recipe(name: str) -> str:
    """Return the job file of a recipe.

    Raises:
        RequestError: no such recipe; the message lists all of them.
    """
    names = recipe_names()
    if name not in names:
        raise RequestError(f"recipe: expected one of {', '.join(names)}, got {name!r}; "
                           f"{did_you_mean(name, names) or 'choose one'}")  # fmt: skip
    return files(__package__).joinpath(f"{name}{SUFFIX}").read_text(encoding="utf-8")
