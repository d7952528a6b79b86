"""What people do with a cache between runs: list it, verify it, make room. Safe while runs use it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..config.safe_yaml import read_yaml
from ..errors import OutputError, PlanError, SourceError
from .permissions import RECIPE_FILE, ForeignFileError, recipe_folders, shards_in
from .shard import DamagedShard, open_shard
from .writer import remove_partial_shards


@dataclass(frozen=True, slots=True)
class RecipeSummary:
    """The shards of one recipe, summed up."""

    recipe: str
    """Its fingerprint, the name of its folder."""
    steps: str
    """What pictures went through, in words."""
    form: str
    """``raw`` or ``jpeg`` with its quality."""
    shards: int
    pictures: int
    bytes: int
    last_used_s: float | None
    """Seconds since 1970; None without shards."""
    damaged: int
    """Shards that cannot be opened; their pictures are not counted."""


@dataclass(frozen=True, slots=True)
class ShardCheck:
    """What verifying found of one shard."""

    path: Path
    pictures: int
    reason: str
    """What is wrong with it; empty where nothing is."""
    removed: bool


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What pruning deleted, and what is left."""

    shards: int
    bytes: int
    kept_shards: int
    kept_bytes: int
    leftovers: int
    """Unfinished files of dead processes that were deleted too."""


def list_recipes(root: Path) -> list[RecipeSummary]:
    """Sum up a cache, a row for each recipe, the one used last first; reads no pixels.

    Raises:
        SourceError: there is no cache in this folder.
    """
    listings = [_listing(folder) for folder in _recipes(root)]
    return sorted(listings, key=lambda one: (-(one.last_used_s or 0.0), one.recipe))


def verify(root: Path, *, remove: bool = False) -> Iterator[ShardCheck]:
    """Check every picture of every shard against its checksum.

    Args:
        root: folder of the cache.
        remove: delete damaged shards; their pictures are made again when they are next wanted.

    Raises:
        SourceError: there is no cache in this folder.
        OutputError: a damaged shard cannot be deleted.
    """
    for folder in _recipes(root):
        raw = _read_recipe(folder).raw
        for path in shards_in(folder):
            num_pictures, reason, removable = 0, "", False
            try:
                shard = open_shard(path, raw=raw, shared=True)
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
    """Delete the shards that were used longest ago, whole ones, until the rest suits.

    A run that reads a deleted shard goes on reading it: its memory stays mapped until the run ends.

    Args:
        root: folder of the cache.
        max_bytes: that may be left, of all recipes together.
        older_than_s: shards not used for so long are deleted.

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
            num_pictures += len(open_shard(path, raw=recipe.raw, shared=True))
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
    raw: bool | None


def _read_recipe(folder: Path) -> _RecipeText:
    """Read ``recipe.json``, which is for people: what is cached is found without it."""
    try:
        recipe = read_yaml(folder / RECIPE_FILE)
        names = [name for step in recipe["steps"] for name in step]
        form = recipe["format"] if recipe["quality"] is None else f"{recipe['format']} {recipe['quality']}"
        raw = {"raw": True, "jpeg": False}[recipe["format"]]
        return _RecipeText(" -> ".join(["decode", *names]), str(form), raw)
    except (PlanError, KeyError, TypeError):
        return _RecipeText("(its recipe cannot be read)", "", None)
