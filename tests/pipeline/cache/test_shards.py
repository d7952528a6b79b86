"""Only intact shards are read: truncated, modified, foreign or partial ones are rejected."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
from cached import TRAINING, hashes_of, plan_for, run, shards_of
from hypothesis import given
from hypothesis import strategies as st
from lightwell.pipeline.cache.codec import CachedImage, encode_image
from lightwell.pipeline.cache.lookup import NOT_FOUND, CacheLookup
from lightwell.pipeline.cache.recipe import Recipe
from lightwell.pipeline.cache.shard import DamagedShard, Shard, open_shard
from lightwell.pipeline.cache.store import PixelCache
from lightwell.pipeline.cache.writer import ShardBuilder, new_shard_file, remove_partial_shards
from lightwell.pipeline.runtime.local_engine import LocalEngine

RECIPE = Recipe((), "exact", None, ())


def keys_of(*numbers: int) -> np.ndarray:
    return np.array([[number * 7919, number] for number in numbers], "<u8")


def picture(seed: int, height: int = 5, width: int = 7) -> CachedImage:
    rng = np.random.default_rng(seed)
    return CachedImage(rng.integers(0, 256, height * width * 3, dtype=np.uint8), (height, width))


def write(folder: Path, *numbers: int) -> Path:
    gathering = ShardBuilder(np.empty(1 << 16, np.uint8))
    for number, key in zip(numbers, keys_of(*numbers), strict=True):
        gathering.add(key.tobytes(), picture(number, 3 + number % 4))
    with new_shard_file(folder) as (file, path):
        gathering.write(file)
    return path


def read_all(shard: Shard) -> list[bytes]:
    return [shard.read(number).data.tobytes() for number in range(len(shard))]


def test_a_shard_returns_the_written_images_without_copying_or_open_files(tmp_path: Path) -> None:
    path = write(tmp_path, 1, 2, 3)
    shard = open_shard(path)
    assert read_all(shard) == [picture(n, 3 + n % 4).data.tobytes() for n in (1, 2, 3)]
    assert shard.keys.tolist() == keys_of(1, 2, 3).tolist()
    view = shard.read(1).data
    assert np.shares_memory(view, shard.pixels)
    assert not view.flags.writeable
    opened = {str(one.resolve()) for one in Path("/proc/self/fd").iterdir()}
    assert str(path) not in opened
    path.unlink()
    assert view.tobytes() == picture(2, 5).data.tobytes()


@pytest.mark.fault("every byte of a cache shard with a flipped bit")
def test_every_flipped_bit_is_detected_or_harmless(tmp_path: Path) -> None:
    """With each byte of a shard modified, it opens to the same images or is reported as damaged."""
    path = write(tmp_path, 1, 2)
    good = path.read_bytes()
    expected = {
        bytes(key): data for key, data in zip(open_shard(path).keys, read_all(open_shard(path)), strict=True)
    }
    noticed = 0
    for place in range(len(good)):
        content = bytearray(good)
        content[place] ^= 1 << place % 8
        flipped = tmp_path / f"{place}.arrow"
        flipped.write_bytes(content)
        try:
            shard = open_shard(flipped)
            found = {bytes(key): data for key, data in zip(shard.keys, read_all(shard), strict=True)}
            assert found == expected, place
        except DamagedShard:
            noticed += 1
        flipped.unlink()
    assert noticed > len(good) // 2


@pytest.mark.fault("cache shards torn")
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.99, 0.9999])
def test_a_torn_shard_is_damaged(share: float, tmp_path: Path) -> None:
    path = write(tmp_path, *range(1, 30))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DamagedShard):
        open_shard(path)


@pytest.mark.fault("a cache shard left full of zeros")
def test_a_shard_of_zeros_after_a_power_failure_is_damaged(tmp_path: Path) -> None:
    path = write(tmp_path, 1, 2)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(DamagedShard):
        open_shard(path)


@given(st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=8, unique=True), max_size=4), st.data())
def test_the_lookup_finds_the_same_as_a_dict(groups: list[list[int]], data: st.DataObject) -> None:
    shards = []
    expected: dict[int, set[tuple[int, int]]] = {}
    for number, group in enumerate(groups):
        empty = np.empty(0)
        shards.append(Shard(Path(str(number)), 0, keys_of(*group), empty, empty, empty, empty, empty))
        for inside, one in enumerate(group):
            expected.setdefault(one, set()).add((number, inside))
    wanted = data.draw(st.lists(st.integers(0, 60), min_size=1))
    for one, found in zip(wanted, CacheLookup(shards).search(keys_of(*wanted)), strict=True):
        assert found in expected.get(one, {(NOT_FOUND, NOT_FOUND)})


def test_half_of_a_key_does_not_match(tmp_path: Path) -> None:
    table = CacheLookup([open_shard(write(tmp_path, 5))])
    other = keys_of(5)
    other[0, 1] += 1
    assert table.contains(np.concatenate([keys_of(5), other])) == [True, False]


def test_partial_shards_of_dead_writers_are_deleted_and_those_of_live_ones_kept(tmp_path: Path) -> None:
    (tmp_path / f".{'0' * 32}.part").write_bytes(b"half a shard")
    with new_shard_file(tmp_path) as (file, path):
        file.write(b"under way")
        assert remove_partial_shards(tmp_path) == 1
        (living,) = tmp_path.iterdir()
        assert living.name == f".{path.stem}.part"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_shard_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError), new_shard_file(tmp_path) as (file, _):
        file.write("no bytes")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_reopened_cache_finds_everything_and_an_open_one_sees_new_shards(tmp_path: Path) -> None:
    with PixelCache(tmp_path, RECIPE) as one, PixelCache(tmp_path, RECIPE) as other:
        one.put([(key, picture(n)) for n, key in enumerate(keys_of(0, 1, 2))])
        one.publish()
        assert other.get(keys_of(1)) == [None]
        other.publish()
        found = other.get(keys_of(2, 9, 0))
        assert found[1] is None
        assert [one.data.tobytes() for one in found if one] == [picture(n).data.tobytes() for n in (2, 0)]
        other.put([(keys_of(1)[0], picture(1))])
        assert other.dump_counts()["added"] == 0


def test_images_are_spread_over_shards_and_a_larger_one_gets_its_own(tmp_path: Path) -> None:
    with PixelCache(tmp_path, RECIPE, shard_bytes=300) as cache:
        pictures = [picture(n) for n in range(6)] + [picture(6, 20, 20)]
        cache.put([(key, one) for key, one in zip(keys_of(*range(7)), pictures, strict=True)])
        cache.publish()
        found = cache.get(keys_of(*range(7)))
        assert [one and one.data.tobytes() for one in found] == [one.data.tobytes() for one in pictures]
    assert [len(open_shard(path)) for path in shards_of(tmp_path)] != [7]
    assert sum(len(open_shard(path)) for path in shards_of(tmp_path)) == 7


def test_buffered_images_stay_within_their_memory_limit(tmp_path: Path) -> None:
    share, large = 600_000, picture(99, 1000, 1000)
    pictures = [picture(number, 100, 100) for number in range(60)]
    with PixelCache(tmp_path, RECIPE, buffer_bytes=share) as cache:
        tracemalloc.start()
        cache.put(list(zip(keys_of(*range(61)), [*pictures, large], strict=True)))
        cache.publish()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert cache.dump_counts()["added"] == 61
        assert cache.contains(keys_of(*range(61)))
    assert peak < 1.25 * share


def test_an_image_too_large_for_a_jpeg_is_not_encoded() -> None:
    longest = np.zeros((2, 65_500, 3), np.uint8)
    assert encode_image(longest, 90) is not None
    assert encode_image(np.zeros((2, 65_501, 3), np.uint8), 90) is None


@pytest.mark.fault("cache shards damaged between runs")
@pytest.mark.parametrize("harm", ["flip", "truncate", "swap", "empty"])
def test_shards_damaged_between_runs_are_produced_again(harm: str, index_path: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    reference, _ = run(plan_for(index_path))
    run(plan_for(index_path, cache=cache))
    (path,) = shards_of(cache)
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 4
    elif harm == "truncate":
        del content[len(content) // 2 :]
    elif harm == "swap":
        run(plan_for(index_path, cache=tmp_path / "b", preprocess=[A.SmallestMaxSize(60)]))
        content = bytearray(shards_of(tmp_path / "b")[0].read_bytes())
    else:
        content = bytearray()
    path.unlink()
    path.write_bytes(content)
    hashes, counts = run(plan_for(index_path, cache=cache))
    assert hashes == reference
    assert counts["added"] == 24
    assert counts["damaged"] == (0 if harm == "swap" else 1)
    hashes, counts = run(plan_for(index_path, cache=cache))
    assert hashes == reference
    assert (counts["misses"], counts["damaged"]) == (0, 0)


def test_the_intact_images_of_a_damaged_shard_are_kept_even_if_they_were_read_before_the_damage_was_noticed(
    tmp_path: Path,
) -> None:
    keys = keys_of(1, 2, 3)
    with PixelCache(tmp_path, RECIPE) as cache:
        cache.put([(key, picture(number)) for number, key in enumerate(keys, 1)])
    (path,) = shards_of(tmp_path)
    content = path.read_bytes()
    last = picture(3).data.tobytes()
    assert content.count(last) == 1
    path.write_bytes(content.replace(last, last[:-1] + bytes([last[-1] ^ 1])))
    with PixelCache(tmp_path, RECIPE) as cache:
        first = cache.get(keys[:1])[0]
        assert first is not None
        assert first.data.tobytes() == picture(1).data.tobytes()
        assert cache.get(keys[2:]) == [None]
        assert (cache.counts.added, cache.counts.damaged) == (2, 1)
    assert not path.exists()
    with PixelCache(tmp_path, RECIPE) as cache:
        assert cache.contains_each(keys) == [True, True, False]
        assert [one.data.tobytes() for one in cache.get(keys[:2]) if one] == [
            picture(number).data.tobytes() for number in (1, 2)
        ]


def test_no_image_of_a_shard_with_one_that_cannot_be_decoded_is_kept(tmp_path: Path) -> None:
    keys = keys_of(1, 2)
    with PixelCache(tmp_path, RECIPE) as cache:
        cache.put([(key, picture(number)) for number, key in enumerate(keys, 1)])
    with PixelCache(tmp_path, RECIPE) as cache:
        found = cache.get(keys)[0]
        assert found is not None
        cache.discard(found)
        cache.put([(keys[1], picture(5))])
    with PixelCache(tmp_path, RECIPE) as cache:
        assert cache.contains_each(keys) == [False, True]
        (second,) = cache.get(keys[1:])
        assert second is not None
        assert second.data.tobytes() == picture(5).data.tobytes()


def test_at_the_limit_nothing_is_evicted_and_batches_stay_the_same(index_path: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    reference, _ = run(plan_for(index_path))
    for limit in (60_000, 60_000, 200_000):
        before = shards_of(cache)
        hashes, counts = run(plan_for(index_path, cache={"dir": cache, "max_bytes": limit}))
        assert hashes == reference
        assert sum(path.stat().st_size for path in shards_of(cache)) <= limit
        assert set(before) <= set(shards_of(cache))
        assert counts["damaged"] == 0
    assert sum(len(open_shard(path)) for path in shards_of(cache)) > 2


@pytest.mark.fault("the cache deleted during a run")
def test_a_cache_deleted_during_a_run_causes_a_warning_and_no_error(
    index_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reference, _ = run(plan_for(index_path))
    with LocalEngine().feed(plan_for(index_path, cache=tmp_path / "cache"), TRAINING) as feed:
        shutil.rmtree(tmp_path / "cache")
        assert hashes_of(feed) == reference
    (told,) = caplog.messages
    assert "nothing more is added" in told
