"""``lightwell cache``: listing, verification and pruning."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
from cached import plan_for, run, shards_of
from commands import lightwell
from lightwell.pipeline.cache.codec import CachedImage
from lightwell.pipeline.cache.maintenance import list_recipes, prune
from lightwell.pipeline.cache.recipe import Recipe
from lightwell.pipeline.cache.shard import open_shard
from lightwell.pipeline.cache.store import PixelCache
from lightwell.pipeline.errors import SourceError


@pytest.fixture
def cache(index_path: Path, tmp_path: Path) -> Path:
    """A cache of two recipes, in a few small shards each."""
    for side in (64, 56):
        options = {"dir": tmp_path / "cache", "max_bytes": 4_000_000}
        run(plan_for(index_path, cache=options, preprocess=[A.SmallestMaxSize(side)]))
    assert len(shards_of(tmp_path / "cache")) >= 2
    return tmp_path / "cache"


def command(*words: object) -> tuple[int, Any, str]:
    done = lightwell("cache", *words, "--json")
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def use(path: Path, days_ago: float) -> None:
    when = path.stat().st_mtime - days_ago * 86_400
    os.utime(path, (when, when))


def test_the_list_summarizes_the_folder(cache: Path) -> None:
    code, found, _ = command("ls", cache)
    assert code == 0
    assert [one["pictures"] for one in found] == [24, 24]
    assert {one["steps"] for one in found} == {"decode -> SmallestMaxSize"}
    assert sum(one["bytes"] for one in found) == sum(path.stat().st_size for path in shards_of(cache))
    assert {one["recipe"] for one in found} == {path.parent.name for path in shards_of(cache)}


def test_verify_finds_a_flipped_bit_and_removes_the_shard_on_request(cache: Path) -> None:
    assert command("verify", cache)[:2] == (
        0,
        {"shards": len(shards_of(cache)), "pictures": 48, "damaged": []},
    )
    bad = shards_of(cache)[0]
    content = bytearray(bad.read_bytes())
    content[len(content) // 2] ^= 1
    bad.write_bytes(content)
    code, found, told = command("verify", cache)
    assert (code, [one["path"] for one in found["damaged"]]) == (1, [str(bad)])
    assert "--remove" in told
    assert bad.exists()
    code, found, _ = command("verify", cache, "--remove")
    assert (code, found["damaged"][0]["removed"]) == (0, True)
    assert not bad.exists()
    assert command("verify", cache)[0] == 0


def test_pruning_deletes_least_recently_used_and_partial_shards(cache: Path) -> None:
    shards = shards_of(cache)
    for number, path in enumerate(shards):
        use(path, days_ago=len(shards) - number)
    (shards[0].parent / f".{'0' * 32}.part").write_bytes(b"half")
    sizes = [path.stat().st_size for path in shards]
    code, found, _ = command("prune", cache, "--max-bytes", sum(sizes[1:]))
    assert code == 0
    assert (found["shards"], found["bytes"], found["leftovers"]) == (1, sizes[0], 1)
    assert shards_of(cache) == shards[1:]
    assert command("prune", cache, "--older-than", 1.5)[1]["kept_shards"] == 1
    assert shards_of(cache) == shards[-1:]
    assert command("prune", cache, "--max-bytes", 0)[1]["kept_bytes"] == 0


def test_using_a_shard_saves_it_from_pruning(cache: Path, index_path: Path) -> None:
    for path in shards_of(cache):
        use(path, days_ago=10)
    run(plan_for(index_path, cache=cache))  # the first recipe: a shorter side of 64
    prune(cache, older_than_s=86_400)
    (left,) = [one for one in list_recipes(cache) if one.shards]
    assert left.pictures == 24
    assert run(plan_for(index_path, cache=cache))[1]["misses"] == 0


@pytest.mark.fault("the cache pruned during a run")
def test_a_run_keeps_reading_pruned_shards(cache: Path) -> None:
    shard = open_shard(shards_of(cache)[0])
    first = shard.read(0).data
    prune(cache, max_bytes=0)
    assert first.any()
    assert shard.read(len(shard) - 1).data.any()


def test_a_picture_of_a_shard_that_was_pruned_leaves_no_empty_shard_behind(tmp_path: Path) -> None:
    key = np.array([[1, 2]], "<u8")
    picture = CachedImage(np.arange(75, dtype=np.uint8), (5, 5))
    with PixelCache(tmp_path, Recipe((), "exact", None, ())) as cache:
        cache.put([(key[0], picture)])
        cache.publish()
        prune(tmp_path, max_bytes=0)
        (found,) = cache.get(key)
        assert found is not None
        assert np.array_equal(found.data, picture.data)
    assert shards_of(tmp_path) == []


@pytest.mark.parametrize("words", [("ls",), ("verify",), ("prune", "--max-bytes", 0)])
def test_a_folder_without_a_cache_is_a_request_error(words: tuple[object, ...], tmp_path: Path) -> None:
    code, found, told = command(words[0], tmp_path, *words[1:])
    assert (code, found) == (2, None)
    assert "expected the folder of a cache" in told


def test_pruning_without_limits_is_a_request_error(cache: Path) -> None:
    assert command("prune", cache)[0] == 2
    with pytest.raises(SourceError):
        prune(cache / "nothing", max_bytes=0)
