"""Atomic writes: concurrent writers, errors, and removal of stale temporary files."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest
from lightwell.pipeline.atomic_io import atomic_write, remove_stale, write_bytes, write_json, write_text
from lightwell.pipeline.errors import OutputError
from patience import HANG_S


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_when_the_context_exits(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.bin"
    with atomic_write(target) as file:
        file.write(b"half")
        file.flush()
        assert not target.exists()
    assert target.read_bytes() == b"half"
    assert names(target.parent) == ["a.bin"]


@pytest.mark.parametrize("durable", [True, False])
def test_after_an_error_the_old_file_is_unchanged_and_no_other_is_left(tmp_path: Path, durable: bool) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def fail() -> None:
        with atomic_write(target, durable=durable) as file:
            file.write(b"new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_an_os_error_is_an_output_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file in a folder's place")
    with pytest.raises(OutputError, match=r"folder/a\.txt"):
        write_text(tmp_path / "folder" / "a.txt", "x")
    with pytest.raises(OutputError, match="No space left"), atomic_write(tmp_path / "b.txt"):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == ["folder"]


def test_names_of_maximum_length_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 250)
    write_bytes(target, b"1")
    assert names(tmp_path) == [target.name]


def test_concurrent_writers_of_one_file_never_mix(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"

    def write(letter: int) -> None:
        for _ in range(20):
            write_bytes(target, bytes([letter]) * 100_000, durable=False)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in b"abcd"]
    for thread in threads:
        thread.start()
    for _ in range(200):
        if target.exists():
            content = target.read_bytes()
            assert len(content) == 100_000
            assert len(set(content)) == 1
    for thread in threads:
        thread.join()
    assert names(tmp_path) == ["a.bin"]


def _hang(target: Path, ready: object) -> None:
    with atomic_write(target) as file:
        file.write(b"half")
        file.flush()
        ready.set()  # type: ignore[attr-defined]
        signal.pause()


def test_files_of_dead_writers_are_removed_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hang, args=(tmp_path / "a.bin", ready))
    process.start()
    assert ready.wait(HANG_S)
    assert remove_stale(tmp_path) == 0
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert len(names(tmp_path)) == 1
    assert remove_stale(tmp_path) == 1
    assert names(tmp_path) == []


def test_other_temporary_files_are_never_removed(tmp_path: Path) -> None:
    for name in (".thesis.tmp", ".a.123.tmp", "a.0123456789abcdef0123456789abcdef.tmp"):
        (tmp_path / name).write_text("not ours")
    assert remove_stale(tmp_path) == 0
    assert len(names(tmp_path)) == 3


def test_json_is_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "é", "value": 1.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"name": "é", "value": 1.5}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text())["value"] == 1.5
