"""Generated JPEGs: orientation metadata, coding variants and damage."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from image_bytes import (
    EOI,
    SOI,
    XMP_NAME,
    ImageFile,
    app1,
    bad,
    damaged,
    exif,
    frame_of,
    good,
    noised,
    replaced,
    saved,
    scan_of,
    segment,
    turned,
    with_segments,
    xmp,
)
from libjpeg_files import ARITHMETIC, ARITHMETIC_PROGRESSIVE, YCCK
from pictures import make_picture
from PIL import Image

PICTURE = make_picture(7, 64, 96)
MEAN_ERROR = 6.0
"""For these smooth images at quality 75 and above."""
SAMPLINGS = {
    "411": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
    "420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "422": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "440": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}
SIDES = ((1, 1), (1, 96), (64, 1), (2, 3), (7, 9), (8, 8), (15, 17), (17, 15), (33, 31), (65, 97))


def by_opencv(picture: np.ndarray, *options: int) -> bytes:
    """Encode with OpenCV."""
    done, data = cv2.imencode(".jpg", picture[..., ::-1], list(options))
    assert done
    return data.tobytes()


def jpegs() -> Iterator[ImageFile]:
    """Yield all files."""
    yield from _orientations()
    yield from _other_carriers()
    yield from _codings()
    yield from _surroundings()
    yield from _cut()
    yield from _changed()


def _orientations() -> Iterator[ImageFile]:
    bases = {
        "rgb": (saved(PICTURE, "JPEG"), PICTURE),
        "420-progressive": (saved(PICTURE, "JPEG", subsampling=2, progressive=True), PICTURE),
        "gray": (saved(PICTURE[..., 1], "JPEG"), PICTURE[..., 1]),
    }
    inks = np.dstack([255 - PICTURE, np.zeros(PICTURE.shape[:2], np.uint8)])
    bases["cmyk"] = saved(Image.fromarray(inks, "CMYK"), "JPEG"), PICTURE
    for name, (data, stored) in bases.items():
        for order in "<>" if name == "rgb" else ">":
            for orientation in range(1, 9):
                what = f"jpeg-{name}-exif-{'little' if order == '<' else 'big'}-{orientation}"
                made = with_segments(data, app1(exif(orientation, order=order)))
                yield good(what, "jpg", made, turned(stored, orientation), MEAN_ERROR)


def _other_carriers() -> Iterator[ImageFile]:
    data = saved(PICTURE, "JPEG")
    for orientation in range(1, 9):
        other = 9 - orientation
        upright = turned(PICTURE, orientation)
        first, second = app1(exif(orientation)), app1(exif(other))
        packet = segment(0xE1, XMP_NAME + xmp(other))
        named = f"{orientation}-and-{other}"
        for what, segments in (
            (f"two-exif-{named}", (first, second)),
            (f"exif-{named}-in-xmp", (first, packet)),
            (f"exif-behind-xmp-{named}", (packet, first)),
            (f"tag-twice-{named}", (app1(exif(orientation, more=[orientation])),)),
            (f"exif-long-{orientation}", (app1(exif(orientation, kind=4)),)),
        ):
            yield good(f"jpeg-{what}", "jpg", with_segments(data, *segments), upright, MEAN_ERROR)
        made = with_segments(data, segment(0xE1, XMP_NAME + xmp(orientation)))
        yield good(f"jpeg-xmp-alone-{orientation}", "jpg", made, PICTURE, MEAN_ERROR)
    at = frame_of(data)
    behind = data[:at] + app1(exif(6)) + data[at:]
    yield good("jpeg-exif-behind-tables-6", "jpg", behind, turned(PICTURE, 6), MEAN_ERROR)
    for name, block in (("0", exif(0)), ("9", exif(9)), ("broken", b"II*\0garbage"), ("empty", b"")):
        yield good(f"jpeg-exif-{name}", "jpg", with_segments(data, app1(block)), PICTURE, MEAN_ERROR)


def _codings() -> Iterator[ImageFile]:
    for name, sampling in SAMPLINGS.items():
        for coding, options in (
            ("sequential", ()),
            ("progressive", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
            ("restart-1", (cv2.IMWRITE_JPEG_RST_INTERVAL, 1)),
            ("restart-5", (cv2.IMWRITE_JPEG_RST_INTERVAL, 5)),
            ("optimized", (cv2.IMWRITE_JPEG_OPTIMIZE, 1)),
        ):
            made = by_opencv(PICTURE, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling, *options)
            yield good(f"jpeg-{name}-{coding}", "jpg", made, PICTURE, MEAN_ERROR)
        for height, width in SIDES:
            picture = make_picture(3, height, width)
            made = by_opencv(picture, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling)
            yield good(f"jpeg-{name}-{width}x{height}", "jpg", made, picture, 60.0)
    for quality in (10, 30, 50, 90, 100):
        yield good(f"jpeg-quality-{quality}", "jpg", saved(PICTURE, "JPEG", quality=quality), PICTURE, 20.0)
    yield good("jpeg-rgb-adobe", "jpg", saved(PICTURE, "JPEG", keep_rgb=True), PICTURE, MEAN_ERROR)
    for coding, options in (("sequential", {}), ("progressive", {"progressive": True})):
        gray = PICTURE[..., 1]
        yield good(f"jpeg-gray-{coding}", "jpg", saved(gray, "JPEG", **options), gray, MEAN_ERROR)
        inks = Image.fromarray(np.dstack([255 - PICTURE, np.full_like(gray, 40)]), "CMYK")
        printed = _printed(255 - PICTURE, 40)
        yield good(f"jpeg-cmyk-{coding}", "jpg", saved(inks, "JPEG", **options), printed, MEAN_ERROR)
    yield good("jpeg-ycck", "jpg", YCCK, _printed(255 - PICTURE, 40), MEAN_ERROR)
    yield good("jpeg-arithmetic", "jpg", ARITHMETIC, PICTURE, MEAN_ERROR)
    yield good("jpeg-arithmetic-progressive", "jpg", ARITHMETIC_PROGRESSIVE, PICTURE, MEAN_ERROR)


def _printed(inks: np.ndarray, black: int) -> np.ndarray:
    light = 255 - black
    return (light - np.round(inks * (light / 255))).astype(np.uint8)


def _surroundings() -> Iterator[ImageFile]:
    data = saved(PICTURE, "JPEG")
    other = saved(make_picture(9, 32, 48), "JPEG")
    icc = b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes((n, 4)) + bytes(60_000)) for n in range(1, 5))
    for what, made in {
        "comment": with_segments(data, segment(0xFE, b"text " * 1000)),
        "profile-of-240-kilobytes": with_segments(data, icc),
        "unknown-segments": with_segments(data, *(segment(0xE0 + n, bytes(n)) for n in range(3, 13))),
        "fill-bytes": with_segments(data, b"\xff" * 7),
        "without-jfif": SOI + data[4 + int.from_bytes(data[4:6], "big") :],
        "byte-behind-end": data + b"\n",
        "zeros-behind-end": data + bytes(70_000),
        "noise-behind-end": data + noised(bytes(4000), 0, 4000, 4000, 1),
        "another-behind-end": data + other,
        "thumbnail-in-exif": with_segments(data, app1(exif(1) + other)),
    }.items():
        yield good(f"jpeg-{what}", "jpg", made, PICTURE, MEAN_ERROR)
    first = Image.fromarray(PICTURE)
    several = saved(first, "MPO", save_all=True, append_images=[Image.fromarray(make_picture(2, 64, 96))])
    yield good("jpeg-mpo", "jpg", several, PICTURE, MEAN_ERROR)


def _cut() -> Iterator[ImageFile]:
    for name, data in (
        ("sequential", saved(PICTURE, "JPEG")),
        ("progressive", saved(PICTURE, "JPEG", progressive=True)),
        ("restart", by_opencv(PICTURE, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)),
        ("exif", with_segments(saved(PICTURE, "JPEG"), app1(exif(6) + bytes(5000)))),
    ):
        header, scan = frame_of(data), scan_of(data)
        ends = {
            len(data) - 1,
            len(data) - 2,
            len(data) - 3,
            scan,
            scan - 1,
            scan - 3,
            header + 4,
            header + 12,
        }
        ends |= set(np.linspace(4, len(data) - 4, 12).astype(int).tolist())
        for end in sorted(ends):
            yield bad(f"jpeg-{name}-cut-at-{end}", "jpg", data[:end], "jpeg")
        for end in np.linspace(scan + 3, len(data) - 40, 5).astype(int).tolist():
            yield damaged(f"jpeg-{name}-cut-at-{end}-and-ended", "jpg", data[:end].rstrip(b"\xff") + EOI)


def _changed() -> Iterator[ImageFile]:
    for name, data in (
        ("sequential", saved(PICTURE, "JPEG", quality=90)),
        ("progressive", saved(PICTURE, "JPEG", quality=90, progressive=True)),
        ("restart", by_opencv(PICTURE, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)),
        ("gray", saved(PICTURE[..., 1], "JPEG", quality=90)),
        ("arithmetic", ARITHMETIC),
    ):
        scan = scan_of(data)
        for seed in range(8):
            made = noised(data, scan, len(data) - 2, 1 + 3 * (seed % 4), seed)
            yield damaged(f"jpeg-{name}-noise-in-pixels-{seed}", "jpg", made)
        middle = (scan + len(data)) // 2
        for marker in (0xD0, 0xD7, 0xC4, 0xE1, 0xDA):
            made = replaced(data, middle, bytes((0xFF, marker)))
            yield damaged(f"jpeg-{name}-marker-{marker:02x}-in-pixels", "jpg", made)
        yield damaged(f"jpeg-{name}-part-missing", "jpg", data[:middle] + data[middle + 100 :])
    data = saved(PICTURE, "JPEG")
    at = frame_of(data)
    for what, size in (("larger", (128, 192)), ("smaller", (32, 48)), ("wider", (64, 104))):
        claimed = size[0].to_bytes(2, "big") + size[1].to_bytes(2, "big")
        yield damaged(f"jpeg-claims-{what}", "jpg", replaced(data, at + 5, claimed))
    for what, place, new in (
        ("no-height", at + 5, b"\0\0"),
        ("no-width", at + 7, b"\0\0"),
        ("12-bits", at + 4, b"\x0c"),
        ("5-channels", at + 9, b"\x05"),
    ):
        yield bad(f"jpeg-{what}", "jpg", replaced(data, place, new), "jpeg")
    for sampling in (0x00, 0x01, 0x10, 0x31, 0x13, 0x44, 0xF1, 0xFF):
        made = replaced(data, at + 11, bytes((sampling,)))
        yield damaged(f"jpeg-claims-sampling-{sampling:02x}", "jpg", made)
    for seed in range(6):
        made = noised(data, at + 4, at + 19, 2, seed)
        yield damaged(f"jpeg-noise-in-frame-{seed}", "jpg", made)
    yield damaged("jpeg-claims-lossless", "jpg", replaced(data, at + 1, b"\xc3"))
    for table, marker in (("quantization", b"\xff\xdb"), ("huffman", b"\xff\xc4")):
        place = data.index(marker)
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        yield damaged(f"jpeg-without-{table}-table", "jpg", data[:place] + data[end:])
        for seed in range(4):
            made = noised(data, place + 5, end, 3, seed)
            yield damaged(f"jpeg-noise-in-{table}-table-{seed}", "jpg", made)
