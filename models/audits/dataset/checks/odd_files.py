"""Readable files that are stored in an unusual way, which decoders and networks may treat differently."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from ..severity import severity_of
from .share_findings import share_finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...findings.finding import Finding
    from ..dataset_table import DatasetTable

SUFFIXES = {
    "jpeg": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "png": {".png"},
    "webp": {".webp"},
    "bmp": {".bmp", ".dib"},
    "gif": {".gif"},
    "tiff": {".tif", ".tiff"},
}
"""Suffixes of file names by format."""
SIZE_FACTOR = 10.0
"""Factor between bytes per pixel and their median of the format from which on they are odd."""
ADVICE = {
    "suffix": "Rename the files; programs that go by the name cannot open them.",
    "cmyk": "Convert the files to RGB: decoders differ in the colors of CMYK.",
    "depth": "Files with more than 8 bits per channel are reduced to 8; convert them if their range is narrow.",
    "frames": "Lightwell uses the first frame or page only; save the others as files if they count.",
    "compression": "Small files for their pixels show little or are compressed much; large ones may carry other data.",
    "turned": "Lightwell turns them upright; programs that ignore EXIF show them turned. Check that boxes fit.",
}


def find_odd_files(table: DatasetTable) -> list[Finding]:
    """Return a finding for each oddity: wrong suffix, CMYK, more than 8 bits, frames, compression, turned by EXIF."""
    readable = table.is_readable
    num_images = int(readable.sum())
    found = []
    for name, phrase, odd in _oddities(table):
        rows = np.flatnonzero(odd & readable)
        if len(rows):
            severity = severity_of("odd_file", "turned" if name == "turned" else "format")
            found.append(
                share_finding(table, ("odd_file", name, severity), rows, num_images, phrase, ADVICE[name])
            )
    return found


def _oddities(table: DatasetTable) -> list[tuple[str, str, NDArray[np.bool_]]]:
    found = []
    formats, modes = table.files.get("format"), table.files.get("mode")
    if formats is not None:
        odd = [
            (suffix := PurePosixPath(str(key)).suffix.lower()) != ""
            and name in SUFFIXES
            and suffix not in SUFFIXES[name]
            for key, name in zip(table.keys.tolist(), formats.tolist(), strict=True)
        ]
        found.append(("suffix", "have another format than their file name says", np.asarray(odd, np.bool_)))
    if modes is not None:
        names = modes.tolist()
        is_cmyk = np.asarray([mode == "CMYK" for mode in names], np.bool_)
        is_deep = np.asarray([str(mode).startswith(("I", "F")) for mode in names], np.bool_)
        found.append(("cmyk", "are stored as CMYK", is_cmyk))
        found.append(("depth", "have more than 8 bits per channel", is_deep))
    if "has_several_frames" in table.files:
        several = np.asarray(table.files["has_several_frames"] == 1, np.bool_)
        found.append(("frames", "have several frames or pages", several))
    if formats is not None and "bytes_per_pixel" in table.files:
        phrase = f"have over {SIZE_FACTOR:g} times more or fewer bytes per pixel than half of their format"
        found.append(("compression", phrase, _odd_compression(table, formats)))
    orientation = table.files.get("orientation")
    if orientation is not None:
        found.append(("turned", "are turned by EXIF", np.asarray(orientation > 1, np.bool_)))
    return found


def _odd_compression(table: DatasetTable, formats: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Return whether bytes per pixel are far from the median of the readable files of the same format."""
    values = np.asarray(table.files["bytes_per_pixel"], np.float64)
    odd = np.zeros(len(values), np.bool_)
    is_known = table.is_readable & (values > 0)
    for name in {str(each) for each in formats[is_known]}:
        rows = np.flatnonzero(is_known & (formats == name))
        ratio = values[rows] / np.median(values[rows])
        odd[rows] = (ratio > SIZE_FACTOR) | (ratio < 1 / SIZE_FACTOR)
    return odd
