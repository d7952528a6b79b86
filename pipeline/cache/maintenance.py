"""Cache maintenance: list, verify and prune. Safe while the cache is in use."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..config.safe_yaml import read_yaml
from ..errors import OutputError, PlanError, SourceError
from .permissions import RECIPE_FILE, ForeignFileError, recipe_folders, shards_in
from .recipe import Form
from .shard import DamagedShard, open_shard
from .writer import remove_partial_shards


@dataclass(frozen=True, slots=True)
class RecipeSummary:
    """Summary of the shards of one recipe."""

    recipe: str
    """Fingerprint, the name of its folder."""
    steps: str
    """Transforms before the cache, as text."""
    form: str
    """``raw``, ``jpeg`` with its quality, or ``features``."""
    shards: int
    pictures: int
    bytes: int
    last_used_s: float | None
    """Seconds since 1970; None without shards."""
    damaged: int
    """Shards that cannot be opened; their images are not counted."""


@dataclass(frozen=True, slots=True)
class ShardCheck:
    """Result of verifying one shard."""

    path: Path
    pictures: int
    reason: str
    """Description of the damage; empty if intact."""
    removed: bool


@dataclass(frozen=True, slots=True)
class PruneResult:
    """Deleted and remaining shards after pruning."""

    shards: int
    bytes: int
    kept_shards: int
    kept_bytes: int
    leftovers: int
    """Deleted partial files of dead processes."""


def list_recipes(root: Path) -> list[RecipeSummary]:
    """Return a summary of each recipe, most recently used first, without reading pixels.

    Raises:
        SourceError: there is no cache in this folder.
    """
    listings = [_listing(folder) for folder in _recipes(root)]
    return sorted(listings, key=lambda one: (-(one.last_used_s or 0.0), one.recipe))


def verify(root: Path, *, remove: bool = False) -> Iterator[ShardCheck]:
    """Verify the checksum of every image of every shard.

    Args:
        root: folder of the cache.
        remove: delete damaged shards; their images are produced again when next needed.

    Raises:
        SourceError: there is no cache in this folder.
        OutputError: a damaged shard cannot be deleted.
    """
    for folder in _recipes(root):
        form = _read_recipe(folder).content
        for path in shards_in(folder):
            num_pictures, reason, removable = 0, "", False
            try:
                shard = open_shard(path, form=form, shared=True)
                num_pictures = len(shard)
                for number in range(num_pictures):
                    shard.read(number)
            except (FileNotFoundError, ForeignFileError):  # pruned meanwhile, or no file of a cache
                continue
            except OSError as error:
                reason = f"{path.name}: cannot be read ({error.strerror or error})"
            except DamagedShard as error:
                reason, removable = str(error), remove
            if removable:
                _delete(path)
            yield ShardCheck(path, num_pictures, reason, removable)


def prune(root: Path, *, max_bytes: int | None = None, older_than_s: float | None = None) -> PruneResult:
    """Delete least recently used shards until the limits are met.

    A run that reads a deleted shard is not affected: its memory stays mapped until the run ends.

    Args:
        root: folder of the cache.
        max_bytes: limit for all recipes together.
        older_than_s: delete shards unused for this long.

    Raises:
        SourceError: there is no cache in this folder.
        OutputError: a shard cannot be deleted.
    """
    folders = _recipes(root)
    num_leftovers = sum(remove_partial_shards(folder) for folder in folders)
    found: list[tuple[float, int, Path]] = []
    for folder in folders:
        for path in shards_in(folder):
            with suppress(FileNotFoundError):
                status = path.lstat()
                found.append((status.st_mtime, status.st_size, path))
    left = sum(size for _, size, _ in found)
    num_deleted = deleted_bytes = 0
    oldest_s = None if older_than_s is None else time.time() - older_than_s
    for used_s, size, path in sorted(found):
        too_old = oldest_s is not None and used_s < oldest_s
        if not too_old and (max_bytes is None or left <= max_bytes):
            continue
        _delete(path)
        left -= size
        num_deleted += 1
        deleted_bytes += size
    return PruneResult(num_deleted, deleted_bytes, len(found) - num_deleted, left, num_leftovers)


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"expected to delete {str(path)!r}, got {error.strerror or error}; run the command as the owner of the cache"
        ) from error


def _recipes(root: Path) -> list[Path]:
    try:
        folders = recipe_folders(root)
    except OSError as error:
        raise SourceError(
            f"expected the folder of a cache, got {str(root)!r} ({error.strerror or error}); check its permissions"
        ) from error
    if not folders:
        raise SourceError(
            f"expected the folder of a cache, got {str(root)!r}; name the one that a plan has as cache.dir"
        )
    return folders


def _listing(folder: Path) -> RecipeSummary:
    recipe = _read_recipe(folder)
    num_pictures = num_bytes = num_shards = num_damaged = 0
    last_used_s: float | None = None
    for path in shards_in(folder):
        try:
            status = path.lstat()
            num_pictures += len(open_shard(path, form=recipe.content, shared=True))
        except (FileNotFoundError, ForeignFileError):
            continue
        except (DamagedShard, OSError):
            num_damaged += 1
        num_shards += 1
        num_bytes += status.st_size
        last_used_s = max(last_used_s or 0.0, status.st_mtime)
    return RecipeSummary(
        folder.name, recipe.steps, recipe.form, num_shards, num_pictures, num_bytes, last_used_s, num_damaged
    )


@dataclass(frozen=True, slots=True)
class _RecipeText:
    steps: str
    form: str
    content: Form | None


def _read_recipe(folder: Path) -> _RecipeText:
    """Read ``recipe.json``, which is informative only; lookups do not need it."""
    try:
        recipe = read_yaml(folder / RECIPE_FILE)
        names = [name for step in recipe["steps"] for name in step]
        if recipe["format"] == "features":
            names.append(f"features of {recipe['network']['model']}")
        form = recipe["format"] if recipe["quality"] is None else f"{recipe['format']} {recipe['quality']}"
        contents: dict[str, Form] = {"raw": "raw", "jpeg": "jpeg", "features": "features"}
        return _RecipeText(" -> ".join(["decode", *names]), str(form), contents[recipe["format"]])
    except (PlanError, KeyError, TypeError):
        return _RecipeText("(its recipe cannot be read)", "", None)
