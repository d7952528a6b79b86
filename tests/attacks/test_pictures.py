"""Pictures of strangers: each costs its own row or entry, in bounded time and memory, and starts no program."""

from __future__ import annotations

import os
import struct
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import warm
from image_bytes import (
    ImageFile,
    app1,
    chunk,
    exif,
    frame_of,
    png,
    replaced,
    saved,
    segment,
    tiff,
    webp,
    with_chunks,
    with_segments,
)
from image_files import write_files
from lightwell import build_index
from lightwell.pipeline.formats.headers import MAX_PIXELS
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from pictures import make_picture

PICTURE = make_picture(1, 24, 32)
JPEG, PNG = saved(PICTURE, "JPEG"), png(PICTURE, 8, 2)
MANY_MB = 250
"""More than reading the largest of these files may take."""

READ = """
import re, sys
from pathlib import Path
from lightwell import LocalEngine, Plan, View, build_index

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

def read(folder, index):
    build_index(folder).save(index)
    errors = {"on_error": "skip", "max_bad_share": None, "max_pixels": 4_000_000}
    plan = Plan.model_validate({"index": index, "batch": {"size": 1}, "errors": errors})
    with LocalEngine(num_threads=1).feed(plan, View()) as feed:
        keys = [key for batch in feed for key in batch.keys]
        return keys, feed.quarantine

root = Path(sys.argv[1])
read(root / "plain", root / "plain.parquet")  # libraries are loaded, threads are made
before = peak()
keys, entries = read(root / "files", root / "files.parquet")
print(peak() - before)
"""


def peak_mb(folder: Path, files: dict[str, bytes]) -> int:
    """Index and read files in a process of their own; returns by how many megabytes its peak of memory grew."""
    write_files(folder / "plain", [ImageFile("a.png", PNG), ImageFile("b.jpg", JPEG)])
    write_files(folder / "files", [ImageFile("good.png", PNG), *(ImageFile(*one) for one in files.items())])
    done = warm.run(READ, folder)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


def read(folder: Path, files: dict[str, bytes]) -> tuple[list[str], dict[str, str]]:
    """Index and read files beside a good one: keys of the images that came, and why others did not."""
    write_files(folder / "files", [ImageFile("good.png", PNG), *(ImageFile(*one) for one in files.items())])
    return read_folder(folder / "files")


def read_folder(files: Path) -> tuple[list[str], dict[str, str]]:
    index = files.with_suffix(".parquet")
    build_index(files, fractions={"train": 1.0}).save(index)
    errors = {"on_error": "skip", "max_bad_share": 1.0}
    plan = Plan.model_validate({"index": index, "batch": {"size": 1}, "errors": errors})
    with LocalEngine(num_threads=1).feed(plan, View()) as feed:
        keys = [key for batch in feed for key in batch.keys]
        return keys, {entry["key"]: entry["reason"] for entry in feed.quarantine}


@cache
def gigabyte() -> bytes:
    """A stream of zlib that inflates to a gigabyte of zeros."""
    packer = zlib.compressobj(1)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024)) + packer.flush()


def claims(side: int) -> dict[str, bytes]:
    """Files of a few bytes whose headers claim as many pixels as ``side`` squared, or the most that the format can."""
    short, word = struct.pack(">H", min(side, 65_535)), struct.pack("<I", side)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bmp = bytearray(saved(PICTURE, "BMP"))
    struct.pack_into("<ii", bmp, 18, side, side)
    gif = bytearray(saved(PICTURE, "GIF"))
    struct.pack_into("<HH", gif, 6, min(side, 65_535), min(side, 65_535))
    canvas = (min(side, 16_384) - 1).to_bytes(3, "little")
    frame = saved(PICTURE, "WEBP")[12:]
    tags = {256: (4, (side,)), 257: (4, (side,)), 258: (3, (8, 8, 8)), 262: (3, (2,)), 277: (3, (3,))}
    return {
        "a.png": PNG[:8] + head + PNG[33:],
        "a.jpg": replaced(JPEG, frame_of(JPEG) + 5, short + short),
        "a.bmp": bytes(bmp),
        "a.gif": bytes(gif),
        "a.webp": webp([(b"VP8X", bytes(4) + canvas + canvas), (frame[:4], frame[8:])]),
        "a.tiff": tiff(bytes(100), (24, 32), tags),
        "a.ppm": b"P6 %d %d 255\n" % (side, side),
        "a.jp2": saved(PICTURE, "JPEG2000").replace(struct.pack(">II", 24, 32), word[::-1] + word[::-1]),
    }


def test_headers_that_claim_billions_of_pixels_are_refused_when_indexed(tmp_path: Path) -> None:
    """A few bytes claim up to a hundred gigapixels, in eight formats: each gets a status, and no pixel is made."""
    files = claims(100_000)
    keys, bad = read(tmp_path, files)
    assert keys == ["good.png"]
    assert bad.keys() == files.keys()
    large = [key for key, reason in bad.items() if f"more than {MAX_PIXELS:,} pixels" in reason]
    assert len(large) >= 6


def test_a_bomb_takes_no_more_memory_than_its_header(tmp_path: Path) -> None:
    """Files that claim too much, or just so much that they are indexed, are read in a process whose memory is measured."""
    bombs = {f"{side}{name}": data for side in (13_000, 100_000) for name, data in claims(side).items()}
    assert peak_mb(tmp_path, bombs) < MANY_MB


def test_a_png_that_inflates_to_a_gigabyte_is_not_inflated(tmp_path: Path) -> None:
    """Some megabytes of pixels inflate to a gigabyte, of which the header claims two kilobytes: no more is made of it."""
    stream = gigabyte()
    end = PNG.index(b"IEND") - 4
    bomb = PNG[: PNG.index(b"IDAT") - 4] + chunk(b"IDAT", stream) + PNG[end:]
    assert peak_mb(tmp_path, {"a.png": bomb}) < MANY_MB


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_text_of_a_png_that_inflates_to_a_gigabyte_is_not_inflated(kind: bytes, tmp_path: Path) -> None:
    """A compressed text or profile of a PNG inflates to a gigabyte: it is refused or left alone, and not unpacked."""
    stream = gigabyte()
    start = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}[kind]
    behind = with_chunks(PNG, chunk(kind, start + stream), before=b"IEND")
    bombs = {"a.png": with_chunks(PNG, chunk(kind, start + stream)), "b.png": behind}
    assert peak_mb(tmp_path, bombs) < MANY_MB


def test_a_file_that_was_swapped_for_a_larger_picture_is_not_decoded(tmp_path: Path) -> None:
    """After indexing, a picture of as many bytes and the same time claims 60,000 pixels a side: the index is compared."""
    write_files(tmp_path / "files", [ImageFile("a.jpg", JPEG), ImageFile("b.jpg", JPEG)])
    index = tmp_path / "i.parquet"
    build_index(tmp_path / "files").save(index)
    path = tmp_path / "files" / "a.jpg"
    before = path.stat()
    path.write_bytes(replaced(JPEG, frame_of(JPEG) + 5, struct.pack(">HH", 60_000, 60_000)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    plan = Plan.model_validate({"index": index, "batch": {"size": 1}, "errors": {"on_error": "skip"}})
    with LocalEngine(num_threads=1).feed(plan, View(split=None)) as feed:
        assert [key for batch in feed for key in batch.keys] == ["b.jpg"]
        (entry,) = feed.quarantine
    assert entry["reason"].startswith("expected 32x24 pixels as indexed, got 60000x60000")


def test_programs_and_documents_named_jpg_are_no_images(tmp_path: Path) -> None:
    """PostScript, SVG, PDF, Photoshop, a shell script and others under the name of a JPEG: refused, nothing is started."""
    marker = tmp_path / "started"
    files = {
        "eps.jpg": f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n({marker}) (w) file\nshowpage\n".encode(),
        "dos-eps.jpg": b"\xc5\xd0\xd3\xc6" + bytes(100),
        "svg.jpg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "pdf.jpg": b"%PDF-1.7\n1 0 obj <</Type /Catalog>> endobj\n",
        "psd.jpg": b"8BPS\0\1" + bytes(6) + b"\0\3" + bytes(100),
        "wmf.jpg": b"\xd7\xcd\xc6\x9a" + bytes(100),
        "fits.jpg": b"SIMPLE  =                    T" + b" " * 3000,
        "script.jpg": f"#!/bin/sh\ntouch {marker}\n".encode(),
        "mvg.jpg": f"push graphic-context\nimage over 0,0 0,0 '|touch {marker}'\n".encode(),
        "icns.jpg": b"icns" + bytes(100),
        "mpeg.jpg": b"\0\0\1\xba" + bytes(100),
        "fpx.jpg": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
    }
    keys, bad = read(tmp_path, files)
    assert keys == ["good.png"]
    assert bad.keys() == files.keys()
    assert all(reason.startswith("not a known image format") for reason in bad.values())
    assert not marker.exists()


def test_metadata_without_end_is_given_up(tmp_path: Path) -> None:
    """A JPEG with 40 MB of EXIF, one with a million empty comments, a GIF with a comment of 20 MB: bounded, and told."""
    block = app1(exif(6) + bytes(65_000))
    keys, bad = read(
        tmp_path,
        {
            "exif.jpg": with_segments(JPEG, *[block] * 640),
            "comments.jpg": with_segments(JPEG, segment(0xFE, b"") * 1_000_000),
            "gif.jpg": saved(PICTURE, "GIF").replace(
                b"!\xf9", b"!\xfe" + (b"\xff" * 256) * 80_000 + b"\0!\xf9", 1
            ),
            "small.jpg": with_segments(JPEG, *[block] * 20),
        },
    )
    assert {"exif.jpg", "comments.jpg"} <= bad.keys()
    assert "does not end within" in bad["exif.jpg"]
    assert "parts" in bad["comments.jpg"]
    assert {"good.png", "small.jpg"} <= {*keys}
    assert {*keys} | bad.keys() == {"good.png", "exif.jpg", "comments.jpg", "gif.jpg", "small.jpg"}


def test_an_animation_without_end_costs_its_first_picture(tmp_path: Path) -> None:
    """A GIF of 30,000 frames that never ends, and one with the trailer missing: the first frame is read, no other."""
    gif = saved(PICTURE, "GIF")
    start = gif.index(b",", 13)
    frame = gif[start:-1]
    files = {"long.gif": gif[:-1] + frame * 30_000, "open.gif": gif[:-1]}
    assert read(tmp_path, files) == (["good.png", "long.gif", "open.gif"], {})


def test_directories_of_a_tiff_that_go_in_circles_end(tmp_path: Path) -> None:
    """A TIFF whose next directory, EXIF directory or sub-directory is its own first one: read or refused, not for ever."""
    tags = {258: (3, (8, 8, 8)), 262: (3, (2,)), 277: (3, (3,))}
    plain = tiff(PICTURE.tobytes(), (24, 32), tags)
    first = struct.unpack_from("<I", plain, 4)[0]
    files = {}
    for number in (330, 34665, 34853, 40965):
        files[f"tag-{number}.tif"] = tiff(PICTURE.tobytes(), (24, 32), {**tags, number: (4, (first,))})
    count = struct.unpack_from("<H", plain, first)[0]
    files["next.tif"] = replaced(plain, first + 2 + 12 * count, struct.pack("<I", first))
    files["first-in-pixels.tif"] = replaced(plain, 4, struct.pack("<I", 8))
    files["exif.jpg"] = with_segments(
        JPEG, app1(b"MM\0*\0\0\0\x08\0\1\x87\x69\0\4\0\0\0\1\0\0\0\x08\0\0\0\x08")
    )
    keys, bad = read(tmp_path, files)
    assert {"next.tif", "exif.jpg"} <= {*keys}
    assert {*keys} | bad.keys() == {"good.png", *files}


def test_every_64th_byte_is_the_end_of_a_picture(tmp_path: Path) -> None:
    """Seven formats cut at every 64th byte: each is refused with a reason, or its pixels are all there."""
    picture = make_picture(2, 40, 60)
    files, whole = {}, {}
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM"):
        data = saved(picture, kind)
        whole[kind] = len(data)
        files |= {f"{kind}-{end}.jpg": data[:end] for end in range(0, len(data), 64)}
    keys, bad = read(tmp_path, files)
    assert len(files) > 300
    assert {*keys} | bad.keys() == {"good.png", *files}
    assert all(bad.values())
    read_though_cut = [key for key in keys if key != "good.png"]
    assert [key for key in read_though_cut if not key.startswith(("TIFF", "GIF"))] == []


def test_what_is_no_regular_file_costs_its_row(tmp_path: Path) -> None:
    """A FIFO, a directory, an empty file, a dangling link and a loop of links named x.jpg: none blocks or ends a run."""
    files = tmp_path / "files"
    write_files(files, [ImageFile("good.png", PNG), ImageFile("empty.jpg", b"")])
    os.mkfifo(files / "fifo.jpg")
    (files / "loop.jpg").symlink_to("loop.jpg")
    (files / "dangling.jpg").symlink_to("nothing.jpg")
    keys, bad = read_folder(files)
    assert keys == ["good.png"]
    assert bad["empty.jpg"].startswith("empty file")
    assert all(bad[name].startswith("cannot be opened") for name in bad if name != "empty.jpg")
    inner = tmp_path / "classes"
    write_files(inner, [])
    write_files(inner / "a", [ImageFile("good.png", PNG)])
    (inner / "a" / "x.jpg").mkdir()
    (inner / "a" / "round").symlink_to(inner)
    assert read_folder(inner) == (["a/good.png"], {})


def test_a_link_out_of_the_folder_shows_nothing_but_a_picture(tmp_path: Path) -> None:
    """A link leads to a private text: its row says that it is no image, and holds no more of it than its first bytes."""
    (tmp_path / "secret.txt").write_text("password=hunter2")
    files = tmp_path / "files"
    write_files(files, [ImageFile("good.png", PNG)])
    (files / "link.jpg").symlink_to(tmp_path / "secret.txt")
    keys, bad = read_folder(files)
    assert keys == ["good.png"]
    assert bad["link.jpg"].startswith("not a known image format")
    assert "hunter2" not in bad["link.jpg"]
    assert b"hunter2".hex(" ") not in bad["link.jpg"]


def test_any_noise_costs_its_picture_at_most(tmp_path: Path) -> None:
    """Random bytes over any part of files of seven formats: each is read or refused, and no other is lost."""
    rng = np.random.default_rng(7)
    files = {}
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF"):
        data = saved(PICTURE, kind)
        for number in range(20):
            made = bytearray(data)
            for at in rng.integers(0, len(data), 1 + number):
                made[at] = rng.integers(256)
            files[f"{kind}-{number}.jpg"] = bytes(made)
    keys, bad = read(tmp_path, files)
    assert "good.png" in keys
    assert {*keys} | bad.keys() == {"good.png", *files}
