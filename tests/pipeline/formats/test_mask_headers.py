"""Mask headers are compared with those of their images when an index is built."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.summary import unusable_rows
from PIL import Image


def png(mode: str, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    return file.getvalue()


MASKS = {
    "fits": png("L", (8, 6)),
    "palette": png("P", (8, 6)),
    "large": png("L", (16, 12)),
    "colours": png("RGB", (8, 6)),
    "deep": png("I;16", (8, 6)),
    "text": b"no picture",
}
GOOD = {"fits", "palette"}


def test_invalid_masks_of_a_table_make_their_rows_unusable(tmp_path: Path) -> None:
    rows = ["path,mask"]
    for name, mask in MASKS.items():
        (tmp_path / f"{name}.png").write_bytes(png("RGB", (8, 6)))
        (tmp_path / f"{name}.seg").write_bytes(mask)
        rows.append(f"{name}.png,{name}.seg")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    index = build_index(tmp_path / "table.csv")
    statuses = dict(zip(index.table["key"].to_pylist(), index.table["status"].to_pylist(), strict=True))
    assert {key for key, status in statuses.items() if status == "ok"} == {f"{name}.png" for name in GOOD}
    assert "expected 8x6 as the picture, got 16x12" in statuses["large.png"]
    assert unusable_rows(index)[1] == [["mask does not fit", "4"]]
    (tmp_path / "large.seg").write_bytes(MASKS["fits"])
    assert len(build_index(tmp_path / "table.csv", previous=index).rows()) == 3


def test_invalid_masks_of_a_shard_make_their_rows_unusable(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, mask in MASKS.items():
            for suffix, data in ((".png", png("RGB", (8, 6))), (".seg.png", mask)):
                info = tarfile.TarInfo(name + suffix)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    index = build_index(tmp_path / "a.tar")
    statuses = index.table["status"].to_pylist()
    assert len(statuses) == len(MASKS)
    assert len(index.rows()) == len(GOOD)
    assert all(status == "ok" or status.startswith("mask does not fit: expected") for status in statuses)
