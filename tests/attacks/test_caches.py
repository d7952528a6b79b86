"""Caches of pixels that somebody else may have written to, and folders of a cache that hold what is not its own."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from cached import plan_for, run, shards_of
from forged_shards import Forged, changed, empty_jpeg, other_size, with_bytes
from lightwell.pipeline.cache import store
from lightwell.pipeline.cache import writer as writing
from lightwell.pipeline.cache.codec import CachedImage
from lightwell.pipeline.cache.maintenance import list_recipes, prune, verify
from lightwell.pipeline.cache.permissions import FILE_MODE, ownership_problem
from lightwell.pipeline.cache.recipe import Recipe
from lightwell.pipeline.cache.shard import DamagedShard, open_shard
from lightwell.pipeline.cache.store import PixelCache
from lightwell.pipeline.errors import PlanError, SourceError
from lightwell.pipeline.index.build import build_index
from pictures import make_folder

RAW = Recipe((), "exact", None, ())
SHARD_NAME = "0123456789abcdef0123456789abcdef.arrow"
STRANGER = 65_534
JPEG = {"format": "jpeg", "quality": 90}
INT32_MOST = 2**31 - 1


@pytest.fixture(scope="module")
def index_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of eight pictures."""
    folder = tmp_path_factory.mktemp("attacked")
    build_index(make_folder(folder / "photos", num_images=8), fractions={"train": 1.0}).save(
        folder / "index.parquet"
    )
    return folder / "index.parquet"


@pytest.fixture(scope="module")
def reference(index_path: Path) -> dict[str, list[str]]:
    """Batches as they are without anybody's hand in the cache."""
    folder = index_path.parent / "reference"
    return {
        "raw": run(plan_for(index_path))[0],
        "jpeg": run(plan_for(index_path, cache={"dir": folder, **JPEG}))[0],
    }


POISONS: dict[str, Callable[[Forged], Forged]] = {
    "height too large": lambda f: replace(f, heights=changed(f.heights, 9_000)),
    "height as large as can be": lambda f: replace(
        f, heights=changed(f.heights, INT32_MOST), widths=changed(f.widths, INT32_MOST)
    ),
    "height of nothing": lambda f: replace(f, heights=changed(f.heights, 0)),
    "height below nothing": lambda f: replace(
        f, heights=changed(f.heights, -int(f.heights[0])), widths=changed(f.widths, -int(f.widths[0]))
    ),
    "lengths moved": lambda f: replace(f, offsets=changed(f.offsets, int(f.offsets[1]) - 3, 1)),
    "lengths behind the end": lambda f: replace(f, offsets=changed(f.offsets, 1 << 40, -1)),
    "lengths backwards": lambda f: replace(f, offsets=changed(f.offsets, int(f.offsets[2]) + 6, 1)),
    "lengths before the beginning": lambda f: replace(f, offsets=changed(f.offsets, -3)),
    "pixels missing": lambda f: replace(f, pixels=f.pixels[: len(f.pixels) // 2]),
    "compressed": lambda f: replace(f, compression="zstd"),
}


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)
@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_poisoned_lengths_and_sizes_with_right_checksums_are_not_believed(
    form: str,
    poison: Callable[[Forged], Forged],
    index_path: Path,
    reference: dict[str, list[str]],
    tmp_path: Path,
) -> None:
    """Heights, widths or offsets of a shard are changed and its checksums worked out anew: made again, batches stay."""
    plan = plan_for(index_path, cache={"dir": tmp_path / "cache", **({} if form == "raw" else JPEG)})
    run(plan)
    (path,) = shards_of(tmp_path / "cache")
    poison(Forged.of(path)).write(path)
    (verdict,) = verify(tmp_path / "cache")
    assert verdict.reason
    hashes, counts = run(plan)
    assert hashes == reference[form]
    assert counts["damaged"] == 1
    assert counts["misses"] > 0


def test_a_forged_shard_that_is_true_is_read(index_path: Path, tmp_path: Path) -> None:
    """The forger of the test above changes nothing: the shard is whole, so that the refusals are of what was changed."""
    plan = plan_for(index_path, cache=tmp_path / "cache")
    run(plan)
    (path,) = shards_of(tmp_path / "cache")
    Forged.of(path).write(path)
    assert [one.reason for one in verify(tmp_path / "cache")] == [""]
    assert run(plan)[1]["misses"] == 0


@pytest.mark.parametrize(
    "forge", [empty_jpeg, other_size, lambda _: b"no JPEG", lambda f: f.pixels[: f.offsets[1] - 9].tobytes()]
)
def test_a_cached_jpeg_that_is_none_is_decoded_from_its_file_instead(
    forge: Callable[[Forged], bytes], index_path: Path, reference: dict[str, list[str]], tmp_path: Path
) -> None:
    """A JPEG with right checksums does not decode, ends early or has another size: its file is read, batches stay."""
    plan = plan_for(index_path, cache={"dir": tmp_path / "cache", **JPEG})
    run(plan)
    (path,) = shards_of(tmp_path / "cache")
    forged = Forged.of(path)
    with_bytes(forged, forge(forged)).write(path)
    hashes, counts = run(plan)
    assert hashes == reference["jpeg"]
    assert counts["damaged"] == 1
    hashes, counts = run(plan)  # makes those again that were found before the shard was thrown away
    assert hashes == reference["jpeg"]
    assert counts["damaged"] == 0
    hashes, counts = run(plan)
    assert hashes == reference["jpeg"]
    assert (counts["damaged"], counts["misses"]) == (0, 0)


def test_the_jpeg_without_a_picture_is_decoded_by_nobody(index_path: Path, tmp_path: Path) -> None:
    """The JPEG of the test above passes every check before decoding and fails there."""
    run(plan_for(index_path, cache={"dir": tmp_path, **JPEG}))
    (path,) = shards_of(tmp_path)
    forged = Forged.of(path)
    data = empty_jpeg(forged)
    with_bytes(forged, data).write(path)
    assert open_shard(path, form="jpeg").read(0).data.tobytes() == data
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) is None


@pytest.fixture
def cache(index_path: Path, tmp_path: Path) -> Path:
    """A cache with one shard."""
    run(plan_for(index_path, cache=tmp_path / "cache"))
    assert len(shards_of(tmp_path / "cache")) == 1
    return tmp_path / "cache"


def test_files_and_links_of_others_outlast_verify_prune_and_damage(
    index_path: Path, cache: Path, tmp_path: Path
) -> None:
    """Foreign .arrow files, links, pipes and folders lie in a cache: none is read, counted, followed or deleted."""
    (shard,) = shards_of(cache)
    outside = tmp_path / "outside"
    outside.mkdir()
    copied = outside / SHARD_NAME
    copied.write_bytes(b"no shard")
    (outside / "recipe.json").write_text("{}")
    linked = shard.parent / SHARD_NAME
    linked.symlink_to(copied)
    (cache / ("f" * 16)).symlink_to(outside)
    pipe, folder = shard.parent / f"{'1' * 32}.arrow", shard.parent / f"{'2' * 32}.arrow"
    os.mkfifo(pipe)
    folder.mkdir()
    os.mkfifo(shard.parent / f".{'3' * 32}.part")
    (shard.parent / f".{'4' * 32}.part").symlink_to(copied)
    thesis = [shard.parent / "thesis.arrow", shard.parent / ".thesis.part", cache / "thesis" / SHARD_NAME]
    thesis[-1].parent.mkdir()
    (thesis[-1].parent / "recipe.json").write_text("{}")
    for path in thesis:
        path.write_bytes(b"five years of work")
    shard_bytes = shard.stat().st_size
    before = sorted(path for path in cache.rglob("*") if path != shard)

    assert [(one.shards, one.damaged, one.bytes) for one in list_recipes(cache)] == [(1, 0, shard_bytes)]
    assert [one.path for one in verify(cache, remove=True)] == [shard]
    assert store.folder_bytes(cache) == shard_bytes
    shard.write_bytes(shard.read_bytes()[:-900])
    _, counts = run(plan_for(index_path, cache=cache))
    assert counts["damaged"] == 1
    assert prune(cache, max_bytes=0).kept_shards == 0
    assert sorted(cache.rglob("*")) == before
    assert copied.read_bytes() == b"no shard"


def test_the_link_of_a_recipe_to_another_folder_is_refused(
    index_path: Path, cache: Path, tmp_path: Path
) -> None:
    """The folder of a recipe is a link to another folder: refused, shared or not, and nothing is written there."""
    recipe = shards_of(cache)[0].parent
    recipe.rename(tmp_path / "elsewhere")
    recipe.symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    for shared in (False, True):
        with pytest.raises(PlanError, match="got the link"):
            run(plan_for(index_path, cache={"dir": cache, "shared": shared}))
    with pytest.raises(SourceError, match="expected the folder of a cache"):
        prune(cache, max_bytes=0)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777, 0o722])
@pytest.mark.parametrize("which", ["the cache", "the recipe"])
def test_a_folder_that_others_may_write_is_refused_unless_it_is_shared(
    which: str, mode: int, index_path: Path, cache: Path
) -> None:
    """Group or others may write the folder of a cache: refused with the cure before it is read; `shared` accepts it."""
    folder = cache if which == "the cache" else shards_of(cache)[0].parent
    folder.chmod(mode)
    with pytest.raises(
        PlanError, match=rf"cache\.dir: .* may write \(mode {mode:04o}\); run `chmod go-w"
    ) as told:
        run(plan_for(index_path, cache=cache))
    assert "`shared: true`" in str(told.value)
    assert run(plan_for(index_path, cache={"dir": cache, "shared": True}))[1]["misses"] == 0
    folder.chmod(0o755)
    assert run(plan_for(index_path, cache=cache))[1]["misses"] == 0


def test_a_folder_of_another_user_is_refused_unless_it_is_shared(index_path: Path, cache: Path) -> None:
    """Another user owns the folder of a cache, or a link to it: refused; `shared` accepts it."""
    if os.geteuid():
        pytest.skip("needs root, who may give files away")
    link = cache.with_name("link")
    link.symlink_to(cache)
    assert run(plan_for(index_path, cache=link))[1]["misses"] == 0
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    for folder in (link, cache):
        with pytest.raises(PlanError, match=rf"belongs to the user {STRANGER}; choose another folder"):
            run(plan_for(index_path, cache=folder))
        assert run(plan_for(index_path, cache={"dir": folder, "shared": True}))[1]["misses"] == 0
        os.chown(cache, STRANGER, STRANGER)


def test_root_and_this_user_are_trusted_and_nobody_else(tmp_path: Path) -> None:
    """What belongs to a user who is neither root nor this one is foreign, by its owner alone."""
    status = tmp_path.stat()
    fields = list(status)
    for uid, mode, is_foreign in (
        (os.geteuid(), 0o755, False),
        (0, 0o755, False),
        (os.geteuid() + 1, 0o700, True),
        (os.geteuid(), 0o775, True),
        (os.geteuid(), 0o757, True),
    ):
        fields[stat.ST_UID], fields[stat.ST_MODE] = uid, stat.S_IFDIR | mode
        assert bool(ownership_problem(os.stat_result(fields))) == is_foreign, (uid, oct(mode))


@pytest.mark.parametrize("how", ["owner", "mode"])
def test_a_shard_of_another_user_in_a_private_folder_is_left_alone_with_a_warning(
    how: str, index_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder became private after others had written to it: their shards are not opened, and one line says so."""
    (shard,) = shards_of(cache)
    if how == "mode":
        shard.chmod(0o666)
    elif os.geteuid():
        pytest.skip("needs root, who may give files away")
    else:
        os.chown(shard, STRANGER, STRANGER)
    _, counts = run(plan_for(index_path, cache=cache))
    assert counts["added"] == 8
    assert shard.exists()
    assert ["left alone" in line for line in caplog.messages] == [True]
    assert run(plan_for(index_path, cache={"dir": cache, "shared": True}))[1]["misses"] == 0


def test_new_folders_are_private_and_no_shard_can_be_written_by_others(
    index_path: Path, tmp_path: Path
) -> None:
    """A generous umask opens new folders to everybody: those of a cache have mode 0700, its shards at most 0644."""
    before = os.umask(0)
    try:
        run(plan_for(index_path, cache=tmp_path / "private" / "cache"))
        run(plan_for(index_path, cache={"dir": tmp_path / "shared", "shared": True}))
    finally:
        os.umask(before)
    (private,) = shards_of(tmp_path / "private" / "cache")
    (shared,) = shards_of(tmp_path / "shared")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (private.parent, private.parent.parent)]
    assert modes == [0o700, 0o700]
    assert stat.S_IMODE(shared.parent.stat().st_mode) == 0o777
    assert [stat.S_IMODE(path.stat().st_mode) for path in (private, shared)] == [FILE_MODE, FILE_MODE]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"steps": 5}', '{"steps": [[["x"]]], "format": [], "quality": {}}', "[" * 100_000],
)
def test_a_recipe_of_others_is_shown_as_one_that_cannot_be_read(text: str, cache: Path) -> None:
    """recipe.json holds any text: the list of caches says so, and its shards are verified all the same."""
    (shard,) = shards_of(cache)
    (shard.parent / "recipe.json").write_text(text)
    assert [(one.steps, one.pictures) for one in list_recipes(cache)] == [("(its recipe cannot be read)", 8)]
    assert [one.reason for one in verify(cache)] == [""]


def test_a_shard_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(cache: Path) -> None:
    """A compressed shard would fill memory: it is refused by its header, and Arrow's memory does not grow."""
    (shard,) = shards_of(cache)
    forged = Forged.of(shard)
    many = np.zeros(64 << 20, np.uint8)
    offsets = changed(forged.offsets, len(many), -1)
    replace(forged, offsets=offsets, pixels=many, compression="zstd").write(shard)
    assert shard.stat().st_size < 1 << 20
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(DamagedShard, match="plain record batch"):
        open_shard(shard)
    assert pa.default_memory_pool().max_memory() == before


def test_hits_do_not_wait_for_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes nothing more while threads wait to keep pictures: what is cached is found all the same."""
    going, writing_began = threading.Event(), threading.Event()
    write_shard = writing.write_shard

    def slow(*args: Any) -> None:
        writing_began.set()
        going.wait()
        write_shard(*args)

    keys = np.array([[number, number] for number in range(9)], "<u8")
    small, large = (
        CachedImage(np.arange(75, dtype=np.uint8), (5, 5)),
        CachedImage(np.zeros(7_500, np.uint8), (50, 50)),
    )
    with PixelCache(tmp_path / "cache", RAW, shard_bytes=80) as cache:
        cache.put([(keys[0], small)])
        cache.publish()
        monkeypatch.setattr(writing, "write_shard", slow)
        keepers = [
            threading.Thread(target=cache.put, args=([(key, small) for key in keys[1:8]],)),
            threading.Thread(target=cache.put, args=([(keys[8], large)],)),
        ]
        found: list[CachedImage | None] = []
        finder = threading.Thread(target=lambda: found.extend(cache.get(keys[:1])), daemon=True)
        try:
            for keeper in keepers:
                keeper.start()
            assert writing_began.wait(60)
            while cache._writer._free_buffers._value:  # until every buffer waits for the disk
                assert keepers[0].is_alive()
                threading.Event().wait(0.001)
            finder.start()
            finder.join(60)
            assert not finder.is_alive()
            assert keepers[0].is_alive()
            assert [one and one.data.tobytes() for one in found] == [small.data.tobytes()]
        finally:
            going.set()
            for keeper in keepers:
                keeper.join()
    assert sum(len(open_shard(path)) for path in shards_of(tmp_path / "cache")) == 9
