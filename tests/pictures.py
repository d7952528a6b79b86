"""Generated images, folders and tar files for tests."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def make_picture(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    """Return a random color image, uint8 HWC RGB, smooth so that JPEG and resizing behave as for photos."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write_picture(path: Path, image_rgb: np.ndarray) -> Path:
    """Write RGB pixels in the format of the file name's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image_rgb[..., ::-1])
    return path


def make_folder(
    root: Path, *, num_images: int = 24, classes: tuple[str, ...] = ("cat", "dog"), extension: str = "jpg"
) -> Path:
    """Write class folders with images of different sizes."""
    for i in range(num_images):
        picture = make_picture(i, height=100 + 4 * (i % 5), width=140 + 6 * (i % 7))
        write_picture(root / classes[i % len(classes)] / f"{i:03}.{extension}", picture)
    return root


def encoded(seed: int, name: str = "jpeg") -> bytes:
    """Return an encoded image."""
    buffer = io.BytesIO()
    Image.fromarray(make_picture(seed)).save(buffer, format=name)
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """Write a tar file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def samples(first: int, number: int) -> dict[str, bytes]:
    """Return the members of a shard: images with one of three classes."""
    members: dict[str, bytes] = {}
    for i in range(first, first + number):
        members[f"x/{i:03}.jpg"] = encoded(i)
        members[f"x/{i:03}.cls"] = str(i % 3).encode()
    return members
