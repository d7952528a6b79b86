"""The user's pictures, made ready: found, checked, linked into one folder, enlarged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import cv2
from lightwell.pipeline.errors import SourceError
from lightwell.pipeline.formats.headers import Header, read_header
from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MAX_PHOTOS = 2_000
"""More are not read: a run sees each of them at most a few times, and all have to lie in the page cache."""

Wanted = Callable[[Header], bool]


def is_plain(header: Header) -> bool:
    """Whether every contestant makes the same of a picture: RGB or gray, upright."""
    return header.status == "ok" and header.mode in ("RGB", "L") and header.orientation == 1


def is_plain_jpeg(header: Header) -> bool:
    """Whether it is a JPEG that every contestant takes alike."""
    return is_plain(header) and header.format == "jpeg"


def find_photos(data: Path, wanted: Wanted, *, most: int = MAX_PHOTOS) -> list[Path]:
    """Find pictures below a folder that have a wanted header and decode, evenly spread over their names."""
    files = sorted(path for path in data.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    found = [path for path in files if wanted(read_header(path))]
    most = min(most, len(found))
    spread = [found[i * len(found) // most] for i in range(most)]
    with ThreadPoolExecutor() as pool:
        return [path for path, good in zip(spread, pool.map(decodes, spread), strict=True) if good]


def some(found: Sequence[Path], what: str, data: Path) -> Sequence[Path]:
    """Refuse to go on with no pictures at all.

    Raises:
        SourceError: there are none.
    """
    if not found:
        raise SourceError(
            f"--data: expected a folder with {what}, got none in {str(data)!r}; give another folder"
        )
    return found


def decodes(path: Path) -> bool:
    """Whether a picture decodes to its end; most peers give up at one that does not."""
    try:
        with Image.open(path) as image:
            image.load()
    except Exception:  # decoders raise nearly anything; the picture is simply not used
        return False
    return True


def link_photos(paths: Sequence[Path], folder: Path, *, at_least: int = 0) -> tuple[str, ...]:
    """Link files into a new folder, repeating them under new names until there are ``at_least`` so many."""
    folder.mkdir(parents=True)
    linked = []
    for number in range(max(len(paths), at_least)):
        path = paths[number % len(paths)].resolve()
        name = folder / f"{number:06}{path.suffix.lower()}"
        try:
            os.link(path, name)
        except OSError:  # another file system
            name.symlink_to(path)
        linked.append(str(name))
    return tuple(linked)


def enlarge(paths: Sequence[Path], folder: Path, megapixels: float, *, most: int) -> Iterator[Path]:
    """Write JPEGs of quality 90 with so many megapixels, enlarged cubically; yields their paths."""
    folder.mkdir(parents=True)
    for number, path in enumerate(islice(paths, most)):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        scale = (megapixels * 1e6 / (image.shape[0] * image.shape[1])) ** 0.5
        large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        name = folder / f"{number:06}.jpg"
        assert cv2.imwrite(str(name), large, [cv2.IMWRITE_JPEG_QUALITY, 90])
        yield name
