"""Image decoder: decodes a batch with the fastest suitable library: DALI, OpenCV or Pillow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...formats.integrity import size_mismatch
from ...formats.jpeg_segments import chroma_subsampling_ratio, uses_interblock_smoothing
from ...geometry import Size
from ...monitor.watchdog import Watchdog
from .dali import DALI_FORMATS, DALI_MODES, DaliDecoder, DaliInput
from .fallback import FallbackLog
from .opencv import decode_16bit, decode_opencv, decode_reduced, reduce_decoded
from .orientation import oriented_size, stored_region, to_stored, upright
from .pillow import decode_pillow
from .plan import DecodePlan

_PNG_BITS = 24
"""Offset of the bits per channel in the header of a PNG."""


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A file's bytes with its properties from the index, already validated by ``integrity.integrity_problem``."""

    data: bytes
    format: str
    mode: str
    orientation: int
    size: Size
    """Height and width of the upright image."""
    key: str = ""
    """Key of the sample, for messages."""

    @property
    def stored_size(self) -> Size:
        """Height and width as stored, before orientation."""
        return oriented_size(self.size, self.orientation)

    def is_16bit_png(self) -> bool:
        """Return whether it is a PNG with 16 bits per channel."""
        return self.format == "png" and self.data[_PNG_BITS : _PNG_BITS + 1] == b"\x10"

    def supports_dali(self) -> bool:
        """Return whether DALI and OpenCV convert this kind of file to RGB by the rule in ``pillow``."""
        return self.format in DALI_FORMATS and self.mode in DALI_MODES and not self.is_16bit_png()

    def supports_region(self) -> bool:
        """Return whether decoding a region yields the same pixels as cropping the full image."""
        return self.format != "jpeg" or not uses_interblock_smoothing(self.data)

    def supports_reduced(self) -> bool:
        """Return whether it can be decoded at reduced size by the DCT."""
        return self.format == "jpeg" and self.mode in DALI_MODES

    def chroma_subsampling_ratio(self) -> int:
        """Return by how much it has to shrink beyond the DCT reduction, so that chroma stays as sharp as luma."""
        return chroma_subsampling_ratio(self.data)


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """Result of decoding one file: uint8 HWC RGB pixels, or the reason for the failure."""

    image: np.ndarray | None
    decoders: tuple[str, ...]
    """Decoders tried, in order; the last one succeeded if there is an image."""
    reason: str = ""
    """Why the failed decoders failed."""
    seconds: float = 0.0
    """Decoding time; 0 if DALI decoded it together with others."""


class ImageDecoder:
    """Decodes regions and formats for which it is faster with DALI, all else with OpenCV and Pillow. One thread at a time.

    Args:
        dali: decodes the files that it supports.
        watchdog: tracks each file.
        fallbacks: logs files decoded by another than the first choice.
    """

    def __init__(
        self, dali: DaliDecoder, watchdog: Watchdog | None = None, fallbacks: FallbackLog | None = None
    ) -> None:
        self._dali = dali
        self._watchdog = watchdog or Watchdog(None)
        self._fallbacks = fallbacks or FallbackLog()

    def decode(self, files: Sequence[EncodedImage], decodings: Sequence[DecodePlan]) -> list[DecodedImage]:
        """Decode files in order, as planned; images are valid until the next call."""
        planned = list(zip(files, decodings, strict=True))
        for_dali = [i for i, (file, decoding) in enumerate(planned) if _is_for_dali(file, decoding)]
        found = self._dali.decode([_dali_input(*planned[i]) for i in for_dali])
        by_dali = dict(zip(for_dali, found, strict=True))
        results = []
        for i, (file, decoding) in enumerate(planned):
            image = by_dali.get(i)
            if isinstance(image, np.ndarray):
                results.append(DecodedImage(upright(image, file.orientation), ("dali",)))
            else:
                results.append(self._decode_single(file, decoding, f"dali: {image.reason}" if image else ""))
        return results

    def _decode_single(self, file: EncodedImage, decoding: DecodePlan, failed: str = "") -> DecodedImage:
        started = time.perf_counter()
        with self._watchdog.track("decode", file.key):
            decoded = decode_single(file, decoding, failed)
        if decoded.reason and decoded.image is not None:
            self._fallbacks.log(file.key, decoded.reason, decoded.decoders[-1])
        return replace(decoded, seconds=time.perf_counter() - started)

    def close(self) -> None:
        """Close DALI."""
        self._dali.close()


def _dali_input(file: EncodedImage, decoding: DecodePlan) -> DaliInput:
    """Return the file as stored: ``upright`` is faster than DALI's transposition on a CPU."""
    return DaliInput(file.key, file.data, stored_region(decoding.region, file.size, file.orientation))


def _is_for_dali(file: EncodedImage, decoding: DecodePlan) -> bool:
    if not file.supports_dali() or decoding.kind == "reduced":
        return False
    if file.format == "jpeg":  # OpenCV is faster for full images
        return decoding.kind == "region" and file.supports_region()
    return True


def decode_single(file: EncodedImage, decoding: DecodePlan, failed: str = "") -> DecodedImage:
    """Decode one file without DALI. Thread-safe.

    Files that DALI supports are tried with OpenCV, then Pillow; other kinds have one decoder, whose conversion follows
    the rule in ``pillow``. Errors are reported by these decoders, so that they are the same on every path: DALI's error
    is for a whole batch.

    Args:
        file: the file.
        decoding: decode plan.
        failed: error of DALI, if it was tried.
    """
    tried: tuple[str, ...] = ("dali",) if failed else ()
    stored = to_stored(decoding, file.size, file.orientation)
    reasons: list[str] = []
    for name, decode in _decoders_of(file, stored):
        tried = (*tried, name)
        try:
            image = decode(file.data)
        except ValueError as error:
            reasons.append(f"{name}: {error}")
            continue
        if stored.kind != "reduced":
            if image.shape[:2] != file.stored_size:
                reasons.append(f"{name}: {size_mismatch(file.stored_size, (image.shape[0], image.shape[1]))}")
                continue
            image = _crop(image, stored)
        reasons = [failed, *reasons] if failed else reasons
        return DecodedImage(upright(image, file.orientation), tried, "; ".join(reasons))
    return DecodedImage(None, tried, "; ".join(reasons))


def _decoders_of(
    file: EncodedImage, stored: DecodePlan
) -> Iterator[tuple[str, Callable[[bytes], np.ndarray]]]:
    """Yield the decoders of a file in the order in which they are tried."""
    if stored.kind == "reduced":
        yield "opencv", lambda data: decode_reduced(data, stored, file.stored_size)
        yield "pillow", lambda data: reduce_decoded(decode_pillow(data, file.stored_size), stored)
    elif file.is_16bit_png():
        yield "opencv", decode_16bit
    else:
        if file.supports_dali():
            yield "opencv", decode_opencv
        yield "pillow", lambda data: decode_pillow(data, file.stored_size)


def _crop(image: np.ndarray, decoding: DecodePlan) -> np.ndarray:
    region = decoding.region
    return image[region.y0 : region.y1, region.x0 : region.x1]
