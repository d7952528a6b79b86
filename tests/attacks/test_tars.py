"""Tar shards of strangers with anything in any place: a bad member costs itself, a break costs the rest, both are told."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pictures import make_picture, write_picture
from strangers import Strangers, remarks, statuses, tried

STRANGERS = Strangers()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one picture."""
    place = tmp_path_factory.mktemp("tars")
    write_picture(place / "a.png", make_picture(0, 8, 8))
    return place


def png(folder: Path) -> bytes:
    return (folder / "a.png").read_bytes()


NAMES = [
    "a.png", "a.png", "b.png", "../up.png", "/abs.png", "x/../../up.png", "./c.png", "d", "", ".", "..", "e.png\n", "\x1b[31m.png",
    "f.seg.png", "a.seg.png", "a.cls", "a.json", "b.json", "g" * 300 + ".png", "h/" * 200 + "i.png", "\udcff.png", "__MACOSX/j.png",
]  # fmt: skip
KINDS = [
    tarfile.REGTYPE, tarfile.REGTYPE, tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE,
    tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE, b"V", b"\xff",
]  # fmt: skip
MEMBER_JSON = [
    b"5", b"[]", b"{", b"[" * 5000, b'{"label": ' + b"9" * 5000 + b"}", b'{"label": 1e400}', b'{"label": NaN}',
    b'{"label": "\\ud800", "class": "\\udfff", "split": "\\ud800"}', b'{"boxes": [[0,0,NaN,1]]}', b'{"boxes": 5, "box_labels": 5}',
    b'{"boxes": [[0,0,4,4]], "box_labels": [[1]], "box_classes": [{}], "keypoints": [[1,2,3]], "keypoint_names": [1,"\\ud800"]}',
    b'{"boxes": [[0,0,4,4]], "box_labels": [99999999999999999999]}', b'{"split": 5, "has_mask": "no", "class": []}', b"\xff", b"",
]  # fmt: skip


def write_tar(path: Path, members: list[tuple[str, bytes, bytes, str]], form: int) -> None:
    with tarfile.open(path, "w", format=form, errors="surrogateescape") as tar:
        for name, kind, data, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = len(data) if kind not in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE) else 0
            tar.addfile(info, io.BytesIO(data))


@tried(500)
@given(data=st.data())
def test_a_tar_of_any_members_is_read_or_refused_in_our_words(folder: Path, data: st.DataObject) -> None:
    """Members lead out of the tar, are links, devices or sparse, repeat names or hold any JSON: rows, counts or one line."""
    content = st.sampled_from([png(folder), png(folder)[:40], b"", b"x", *MEMBER_JSON])
    member = st.tuples(st.sampled_from(NAMES), st.sampled_from(KINDS), content, st.sampled_from(NAMES))
    members = data.draw(st.lists(member, max_size=6))
    form = data.draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    path = folder / "t.tar"
    try:
        write_tar(path, members, form)
    except ValueError:  # a name too long for this format
        assume(False)
    index = STRANGERS.index(path)
    if index is not None and {kind for _, kind, _, _ in members} <= {tarfile.REGTYPE}:
        images = [name for name, *_ in members if name.strip("\n").endswith(".png") and "seg" not in name]
        whole = [key for key, status in statuses(index).items() if not status.startswith("broken shard")]
        assert len(whole) + remarks(index, "left_out") + remarks(index, "assumed") >= len(images)
    assert not list(folder.glob("../up.png"))


def header_fields() -> Iterator[tuple[int, int]]:
    """Where each field of a tar's header begins and ends."""
    start = 0
    for size in (100, 8, 8, 8, 12, 12, 8, 1, 100, 6, 2, 32, 32, 8, 8, 155):
        yield start, start + size
        start += size


VALUES = [
    b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7, b"77777777777\0", b"-0000000001\0",
    b"           \0", b"9999", b"\0" * 12, b"L", b"K", b"x", b"g", b"S", b"1", b"2", b"../../x", b"ustar\0", b"GNUtar ",
]  # fmt: skip
PAX = [
    ("size", "99999999999999"), ("size", "-5"), ("size", "x"), ("path", "../../up.png"), ("linkpath", "/etc/passwd"),
    ("GNU.sparse.major", "1"), ("GNU.sparse.map", "0,1," * 1000), ("GNU.sparse.size", "999999999999"), ("hdrcharset", "BINARY"),
    ("mtime", "nan"), ("comment", "x" * 100_000), ("GNU.sparse.numblocks", "999999999"),
]  # fmt: skip


@tried(600)
@given(data=st.data())
def test_headers_of_a_tar_that_lie_cost_their_rest_at_most(folder: Path, data: st.DataObject) -> None:
    """Sizes are huge or negative, records of pax repeat or lie, the file is cut: what stood before is read, the break has a row."""
    path = folder / "t.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(3):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = len(png(folder))
            info.pax_headers = dict(data.draw(st.lists(st.sampled_from(PAX), max_size=2))) if number else {}
            tar.addfile(info, io.BytesIO(png(folder)))
    content = bytearray(path.read_bytes())
    first = 512 + -(-len(png(folder)) // 512) * 512
    for _ in range(data.draw(st.integers(0, 3))):
        block = first + 512 * data.draw(st.integers(0, 3))
        start, end = data.draw(st.sampled_from(list(header_fields())))
        value = data.draw(st.one_of(st.sampled_from(VALUES), st.binary(max_size=12)))[: end - start]
        content[block + start : block + start + len(value)] = value
        if data.draw(st.booleans()):
            header = content[block : block + 512]
            content[block + 148 : block + 156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
    path.write_bytes(bytes(content[: data.draw(st.integers(first, len(content)))]))
    index = STRANGERS.index(path)
    assert index is not None
    assert statuses(index)["t/0"] == "ok"
    assert len(index) < 10


@pytest.mark.parametrize("kind", ["gzip", "zeros", "members", "records", "chain"])
def test_a_tar_that_would_grow_is_read_in_bounded_memory(tmp_path: Path, kind: str) -> None:
    """A compressed tar, gigabytes of nothing, a hundred thousand members, records and links: rows or one line, soon."""
    path = tmp_path / "t.tar"
    if kind == "gzip":
        path.write_bytes(gzip.compress(b"\0" * 10_000_000))
    elif kind == "zeros":
        with path.open("wb") as file:
            file.truncate(50 << 30)
    elif kind == "members":
        write_tar(path, [(f"{n}.txt", tarfile.REGTYPE, b"", "") for n in range(20_000)], tarfile.USTAR_FORMAT)
    elif kind == "records":
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
            info = tarfile.TarInfo("a.png")
            info.pax_headers = {f"key{number}": "x" * 1000 for number in range(2_000)}
            tar.addfile(info)
    else:
        write_tar(
            path,
            [(f"{n}.png", tarfile.SYMTYPE, b"", f"{n + 1}.png") for n in range(5_000)],
            tarfile.USTAR_FORMAT,
        )
    index = STRANGERS.index(path)
    assert index is None or "ok" not in statuses(index).values()


def test_enough_was_tried() -> None:
    """The count of what was tried above."""
    STRANGERS.check()
