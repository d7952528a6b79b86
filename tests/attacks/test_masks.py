"""Attacks by masks and annotations of an index from a stranger: each costs its own image, in bounded time and memory."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from annotated import Scene, write_index
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from PIL import Image

SIZE = (20, 30)
GOOD = np.ones(SIZE, np.uint8)
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\n(/etc/passwd) (r) file pop\nshowpage\n"


def huge_png() -> bytes:
    """Claim 60,000 x 60,000 pixels of 1 bit, which a few kilobytes can hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(4096)))
        + chunk(b"IEND", b"")
    )


def swap_masks(folder: Path, replacements: dict[int, bytes]) -> tuple[list[str], dict[str, str]]:
    """Index good masks, put others in their place, and read: keys of the images that came, and why others did not."""
    scenes = [Scene(f"{i}.png", np.zeros((*SIZE, 3), np.uint8), GOOD) for i in range(len(replacements) + 1)]
    path = write_index(folder, scenes)
    for number, data in replacements.items():
        (folder / f"{number}.png.mask.png").write_bytes(data)
    plan = Plan(index=path, errors={"on_error": "skip", "max_bad_share": 1.0})
    with LocalEngine(num_threads=1).feed(plan, View()) as feed:
        keys = [key for batch in feed for key in batch.keys]
        return keys, {entry["key"]: f"{entry['step']}: {entry['reason']}" for entry in feed.quarantine}


def test_a_postscript_named_png_never_reaches_an_interpreter(tmp_path: Path) -> None:
    """A mask that is a PostScript program runs code in Ghostscript; it must be refused as no known format."""
    keys, bad = swap_masks(tmp_path, {0: POSTSCRIPT})
    assert keys == ["1.png"]
    assert bad["0.png"].startswith("mask: expected a label mask, got a file that cannot be used")


def test_a_mask_of_billions_of_pixels_is_refused_by_its_header(tmp_path: Path) -> None:
    """A small file that unpacks to gigabytes exhausts memory; its header must be enough to refuse it."""
    keys, bad = swap_masks(tmp_path, {0: huge_png()})
    assert keys == ["1.png"]
    assert bad["0.png"].startswith("mask: expected")


def test_masks_of_random_bytes_and_random_damage_cost_their_images_only(tmp_path: Path) -> None:
    """Damaged masks crash decoders or give labels of another size; every one must be labels as large or an entry."""
    file = io.BytesIO()
    Image.fromarray(GOOD).save(file, "PNG")
    rng = np.random.default_rng(0)
    damaged = {}
    for number in range(40):
        data = bytearray(file.getvalue())
        for place in rng.integers(0, len(data), 1 + number % 4):
            data[place] = rng.integers(256)
        damaged[number] = bytes(data[: rng.integers(1, len(data) + 1)] if number % 3 == 0 else data)
    keys, bad = swap_masks(tmp_path, damaged)
    assert "40.png" in keys
    assert len(keys) + len(bad) == 41
    assert all(reason.startswith("mask: expected") for reason in bad.values())


def test_a_mask_from_outside_the_data_set_gives_nothing_but_a_status(tmp_path: Path) -> None:
    """A table that names a private text file as mask must not show its content anywhere."""
    (tmp_path / "secret.txt").write_text("password=hunter2")
    scenes = [Scene("0.png", np.zeros((*SIZE, 3), np.uint8), mask_file=b"password=hunter2")]
    index = Index.load(write_index(tmp_path, scenes))
    (status,) = index.table["status"].to_pylist()
    assert status.startswith("mask ")
    assert "hunter2" not in status
