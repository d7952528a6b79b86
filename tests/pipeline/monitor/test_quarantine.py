"""Bad files of every kind, before and during a run: quarantined with a reason, replaced or skipped, and counted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightwell.pipeline.config.checked_model import build_checked
from lightwell.pipeline.errors import PlanError, RunError, SampleError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.load.decode.dali import DaliDecoder, DaliFailure, DaliInput
from lightwell.pipeline.load.decode.plan import full_region
from lightwell.pipeline.monitor.quarantine import Quarantine, QuarantineEntry
from lightwell.pipeline.plan.error_policy import MIN_IMAGES_FOR_SHARE, ErrorPolicy
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from pictures import make_folder, make_picture, write_picture

Damage = Callable[[Path], None]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def scramble(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def vanish(path: Path) -> None:
    path.unlink()


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(1, 1))


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


KINDS: dict[str, tuple[Damage, str]] = {
    "truncated": (cut, "bytes as indexed"),
    "zero bytes": (empty, "got 0"),
    "unreadable": (scramble, "written at another time"),
    "vanished": (vanish, "vanished since it was indexed"),
    "grown": (grow, "bytes as indexed"),
    "replaced": (rewrite, "written at another time"),
    "a folder": (become_folder, "not a regular file"),
    "a pipe": (become_pipe, "not a regular file"),
}


def plan_for(index: Path, **changes: Any) -> Plan:
    return Plan.model_validate(
        {"index": index, "preprocess": [A.Resize(32, 32)], "batch": {"size": 8}, **changes}
    )


def uris(index: Path) -> list[Path]:
    return [Path(uri) for uri in Index.load(index).table["uri"].to_pylist()]


def run(plan: Plan, view: View | None = None, **engine: Any) -> tuple[list[Any], Any]:
    with LocalEngine(num_threads=2, **engine).feed(plan, view or View()) as feed:
        return list(feed), feed


@pytest.mark.fault("a file emptied, cut, grown, rewritten, vanished, a folder or a pipe")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["opencv", "dali"])
def test_every_kind_of_damage_is_quarantined_with_its_reason(
    index_path: Path, kind: str, backend: str
) -> None:
    damage, reason = KINDS[kind]
    bad = uris(index_path)[5]
    damage(bad)
    _, feed = run(plan_for(index_path), backend=backend)
    (entry,) = feed.quarantine
    assert entry["uri"] == str(bad)
    assert entry["step"] == "read"
    assert reason in entry["reason"]
    assert feed.counts == {"read": 24, "used": 23, "replaced": 1, "skipped": 0}


def test_the_file_name_does_not_determine_the_format(tmp_path: Path) -> None:
    write_picture(tmp_path / "set" / "a.png", make_picture(0)).rename(tmp_path / "set" / "a.jpg")
    build_index(tmp_path / "set").save(tmp_path / "i.parquet")
    (batch,), feed = run(plan_for(tmp_path / "i.parquet"))
    assert batch.keys == ("a.jpg",)
    assert feed.quarantine == []


@pytest.mark.fault("bit rot that decodes")
@pytest.mark.parametrize("hashed", [False, True])
def test_decodable_bit_rot_is_detected_by_the_hash(tmp_path: Path, hashed: bool) -> None:
    folder = make_folder(tmp_path / "set", num_images=6, extension="bmp")
    build_index(folder, hash_content=hashed).save(tmp_path / "i.parquet")
    bad = uris(tmp_path / "i.parquet")[2]
    stamp = bad.stat()
    data = bytearray(bad.read_bytes())
    data[len(data) // 2] ^= 0x10
    bad.write_bytes(data)
    os.utime(bad, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    _, feed = run(plan_for(tmp_path / "i.parquet"))
    assert [entry["uri"] for entry in feed.quarantine] == ([str(bad)] if hashed else [])
    assert all("expected content with the hash" in entry["reason"] for entry in feed.quarantine)


def test_with_a_hash_the_modification_time_is_ignored(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set", num_images=4)
    build_index(folder, hash_content=True).save(tmp_path / "i.parquet")
    for path in uris(tmp_path / "i.parquet"):
        os.utime(path, ns=(1, 1))
    _, feed = run(plan_for(tmp_path / "i.parquet"))
    assert feed.quarantine == []


def test_too_many_pixels_or_bytes_are_rejected_before_the_file_is_read(index_path: Path) -> None:
    table = Index.load(index_path).table.to_pylist()
    for row in table:
        Path(row["uri"]).unlink()  # reading one would fail
    pixels = min(row["width"] * row["height"] for row in table) - 1
    for limit in ({"max_pixels": pixels}, {"max_file_bytes": 10}):
        plan = plan_for(index_path, errors={**limit, "on_error": "skip"})
        batches, feed = run(plan)
        assert batches == []
        assert feed.counts == {"read": 0, "used": 0, "replaced": 0, "skipped": 24}
        assert {entry["step"] for entry in feed.quarantine} == {"limit"}
        assert next(iter(limit)) in feed.quarantine[0]["reason"]


@pytest.mark.fault("three files vanish, cut or rewritten during a run")
@pytest.mark.parametrize("damage", [vanish, cut, rewrite])
def test_files_that_change_during_a_run_affect_one_image_each(index_path: Path, damage: Damage) -> None:
    plan = plan_for(index_path, batch={"size": 4})
    reference, _ = run(plan)
    with LocalEngine(num_threads=1, prefetch=1).feed(plan, View()) as feed:
        batches = iter(feed)
        made = [next(batches)]
        bad = uris(index_path)[18:21]
        for path in bad:
            damage(path)
        made += batches
    assert [entry["uri"] for entry in feed.quarantine] == sorted(map(str, bad))
    assert feed.counts == {"read": 24, "used": 21, "replaced": 3, "skipped": 0}
    for one, other in zip(made, reference, strict=True):
        good = ~torch.from_numpy(one.replaced)
        assert torch.equal(one.images[good], other.images[good])


def test_skipped_images_make_their_batch_smaller_and_affect_no_other(index_path: Path) -> None:
    normalize = A.Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    for preprocess in ([A.Resize(32, 32)], [A.Resize(32, 32), normalize]):
        reference, _ = run(plan_for(index_path, preprocess=preprocess))
        hidden = {}
        for number in (3, 9, 10):
            path = uris(index_path)[number]
            hidden[path] = path.rename(path.with_name(f".{path.name}"))
        plan = plan_for(index_path, preprocess=preprocess, errors={"on_error": "skip"})
        batches, feed = run(plan)
        for path, aside in hidden.items():
            aside.rename(path)
        assert [(len(b), b.num_skipped) for b in batches] == [(7, 1), (6, 2), (8, 0)]
        assert feed.counts == {"read": 21, "used": 21, "replaced": 0, "skipped": 3}
        assert all(entry["replaced_by"] is None for entry in feed.quarantine)
        for one, other in zip(batches, reference, strict=True):
            rows = [other.keys.index(key) for key in one.keys]
            assert torch.equal(one.images, other.images[rows])
            assert torch.equal(one.labels, other.labels[rows])
            assert one.images.stride()[1:] == other.images.stride()[1:]


def test_raise_stops_at_the_first_and_names_it(index_path: Path) -> None:
    bad = Index.load(index_path).table.slice(5, 1).to_pylist()[0]
    vanish(Path(bad["uri"]))
    plan = plan_for(index_path, errors={"on_error": "raise"})
    with pytest.raises(SampleError, match=f"read of '{bad['key']}': FileNotFoundError"):
        run(plan)


def test_more_bad_files_than_tolerated_stop_the_run_with_the_list(index_path: Path) -> None:
    for path in uris(index_path)[:5]:
        vanish(path)
    run(plan_for(index_path, errors={"max_bad": 5}))
    with pytest.raises(
        RunError, match=r"at most 4 bad files \(errors.max_bad\), got 5.*'cat/000.jpg' \(read: .*and 2 more"
    ):
        run(plan_for(index_path, errors={"max_bad": 4}), View(num_epochs=3))


def test_a_bad_file_counts_once_over_all_epochs(index_path: Path) -> None:
    vanish(uris(index_path)[0])
    _, feed = run(plan_for(index_path, errors={"max_bad": 1}), View(num_epochs=4))
    assert feed.counts["replaced"] == 4


def test_the_share_is_checked_after_a_minimum_of_samples() -> None:
    quarantine = Quarantine(ErrorPolicy(max_bad_share=0.1))
    for number in range(100):
        quarantine.add(QuarantineEntry(f"{number}", "", "read", "gone", "", None, 0))
    quarantine.check_limits(made=MIN_IMAGES_FOR_SHARE - 1, failed=100)
    with pytest.raises(RunError, match=r"at most 10.0% bad images \(errors.max_bad_share\), got 39.1%"):
        quarantine.check_limits(made=1, failed=0)


def test_limits_that_only_stop_a_run_do_not_change_the_fingerprint(index_path: Path) -> None:
    plain = plan_for(index_path).fingerprint()
    assert plan_for(index_path, errors={"max_bad": 3, "max_wait_s": 1}).fingerprint() == plain
    assert plan_for(index_path, errors={"on_error": "skip"}).fingerprint() != plain
    with pytest.raises(PlanError, match=r"errors\.max_bda: no such key; did you mean 'max_bad'"):
        build_checked(Plan, {"index": "i", "errors": {"max_bda": 3}}, where="plan", folder=Path())


@pytest.mark.fault("bad files in the middle of DALI batches")
def test_dali_goes_on_after_every_error(tmp_path: Path) -> None:
    good = write_picture(tmp_path / "a.jpg", make_picture(3)).read_bytes()
    picture = make_picture(3).shape[:2]
    bad = [b"", b"\xff\xd8\xff", good[: len(good) // 3], bytes(500)]
    decoder = DaliDecoder(max_batch_size=8, num_threads=1)
    (reference,) = decoder.decode([DaliInput("good", good, full_region(picture))])
    reference = np.array(reference)
    for number in range(12):
        files = [good, bad[number % 4], good, bad[(number + 1) % 4], good]
        found = decoder.decode([DaliInput("one", data, full_region(picture)) for data in files])
        assert [isinstance(one, DaliFailure) for one in found] == [False, True, False, True, False]
        assert np.array_equal(found[4], reference)
    decoder.close()


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Path, tuple[bytes, int]]]:
    """Twelve images in four formats, their index, and their content."""
    root = tmp_path_factory.mktemp("pristine")
    for number, extension in enumerate(["jpg", "png", "webp", "tiff"] * 3):
        write_picture(root / "set" / f"{number:02}.{extension}", make_picture(number, 60, 80))
    build_index(root / "set", fractions={"train": 1.0}).save(root / "i.parquet")
    return root / "i.parquet", {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in uris(root / "i.parquet")}


DAMAGES = {kind: damage for kind, (damage, _) in KINDS.items()}


def keep_time(damage: Damage) -> Damage:
    """Damage a file and keep its modification time, so that only decoding detects it."""

    def hidden(path: Path) -> None:
        stamp = path.stat()
        size = stamp.st_size
        damage(path)
        path.write_bytes(path.read_bytes().ljust(size, b"\0")[:size])
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    return hidden


DAMAGES |= {"hidden cut": keep_time(cut), "hidden noise": keep_time(scramble)}


@pytest.mark.fault("random damage to up to eight of twelve files", times=25)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    damaged=st.dictionaries(st.integers(0, 11), st.sampled_from(sorted(DAMAGES)), max_size=8),
    rule=st.sampled_from(["replace", "skip"]),
    backend=st.sampled_from(["opencv", "dali"]),
    size=st.integers(1, 6),
)
def test_with_any_damage_counts_add_up_and_other_pixels_stay_the_same(
    pristine: tuple[Path, dict[Path, tuple[bytes, int]]],
    damaged: dict[int, str],
    rule: str,
    backend: str,
    size: int,
) -> None:
    index, contents = pristine
    paths = list(contents)
    plan = plan_for(index, batch={"size": size}, errors={"on_error": rule})
    reference = {
        key: image
        for batch in run(plan, backend=backend)[0]
        for key, image in zip(batch.keys, batch.images, strict=True)
    }
    try:
        for number, kind in damaged.items():
            DAMAGES[kind](paths[number])
        batches, feed = run(plan, backend=backend)
    finally:
        for path, (content, mtime_ns) in contents.items():
            if path.is_dir():
                path.rmdir()
            path.unlink(missing_ok=True)
            path.write_bytes(content)
            os.utime(path, ns=(mtime_ns, mtime_ns))
    counts = feed.counts
    bad = {entry["key"] for entry in feed.quarantine}
    # A truncated TIFF or JPEG with its old time stamp may still decode: all others must be listed.
    certain = {paths[n].name for n, kind in damaged.items() if not kind.startswith("hidden cut")}
    assert certain <= bad <= {paths[n].name for n in damaged}
    assert counts["read"] == counts["used"] + counts["replaced"] == sum(map(len, batches))
    assert counts["used"] == 12 - len(bad)
    assert (counts["replaced"], counts["skipped"]) == ((len(bad), 0) if rule == "replace" else (0, len(bad)))
    assert sum(batch.num_skipped for batch in batches) <= counts["skipped"]
    maybe = {paths[n].name for n in damaged}
    for batch in batches:
        for key, image, replaced in zip(batch.keys, batch.images, batch.replaced, strict=True):
            assert key not in bad
            assert key in maybe or replaced or torch.equal(image, reference[key])
