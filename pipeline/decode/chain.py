"""Decode a batch with whoever is fastest and can: DALI, OpenCV, then Pillow. One bad file costs one file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..policy.sizes import Size
from .dali import DALI_FORMATS, DALI_MODES, DaliDecoder
from .opencv import decode_opencv, decode_reduced
from .pillow import decode_pillow
from .plan import Decoding

COLOR_RULE_VERSION = 1
"""Raised when the same file becomes other RGB pixels than before: cached ones are then made anew."""

DECODERS = (("opencv", decode_opencv), ("pillow", decode_pillow))
"""What is tried without DALI, in order."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A file's bytes with what the index says of them."""

    data: bytes
    format: str
    mode: str
    orientation: int
    size: Size
    """Height and width of the upright picture."""

    def suits_dali(self) -> bool:
        """Say whether DALI follows the stated colour rule for this kind of file."""
        oriented_by_dali = self.orientation == 1 or self.format == "jpeg"
        return self.format in DALI_FORMATS and self.mode in DALI_MODES and oriented_by_dali

    def may_be_reduced(self) -> bool:
        """Say whether the DCT can shrink it."""
        return self.format == "jpeg" and self.mode in DALI_MODES


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of one file: uint8 HWC RGB pixels and who decoded them, or why nobody could."""

    image: np.ndarray | None
    decoders: tuple[str, ...]
    """Those that were tried; the last one succeeded if there is an image."""
    reason: str = ""
    seconds: float = 0.0
    """What it took alone; 0 for what DALI decoded together with others."""


class DecodeChain:
    """DALI for regions and for what OpenCV is slower at, OpenCV and Pillow for the rest. One thread at a time."""

    def __init__(self, dali: DaliDecoder) -> None:
        self._dali = dali

    def decode(self, files: Sequence[Encoded], decodings: Sequence[Decoding]) -> list[Decoded]:
        """Decode files in order, as their plans say; images last until the next call."""
        planned = list(zip(files, decodings, strict=True))
        for_dali = [i for i, (file, decoding) in enumerate(planned) if _is_for_dali(file, decoding)]
        results: dict[int, Decoded] = {}
        for start in range(0, len(for_dali), self._dali.max_batch_size):
            chunk = for_dali[start : start + self._dali.max_batch_size]
            found = self._dali.decode([files[i].data for i in chunk], [decodings[i].region for i in chunk])
            last = start + self._dali.max_batch_size >= len(for_dali)
            for i, image in zip(chunk, found, strict=True):
                if isinstance(image, str):
                    results[i] = _timed(*planned[i], [f"dali: {image}"])
                else:
                    results[i] = Decoded(image if last else np.array(image), ("dali",))
        return [
            results[i] if i in results else _timed(file, decoding, [])
            for i, (file, decoding) in enumerate(planned)
        ]

    def close(self) -> None:
        """Close DALI."""
        self._dali.close()


def _is_for_dali(file: Encoded, decoding: Decoding) -> bool:
    if not file.suits_dali() or decoding.kind == "reduced":
        return False
    return decoding.kind == "region" or file.format != "jpeg"  # whole JPEGs are faster by OpenCV


def _timed(file: Encoded, decoding: Decoding, reasons: list[str]) -> Decoded:
    started = time.perf_counter()
    decoded = decode_alone(file, decoding, reasons)
    return replace(decoded, seconds=time.perf_counter() - started)


def decode_alone(file: Encoded, decoding: Decoding, reasons: list[str]) -> Decoded:
    """Decode one file without DALI; any thread may call this.

    OpenCV is next for what suits DALI; alpha, palettes, CMYK and 16-bit gray go to Pillow, whose conversion
    follows the stated rule.
    """
    tried = ["dali"] if reasons else []
    if decoding.kind == "reduced":
        tried.append("opencv")
        try:
            return Decoded(decode_reduced(file.data, decoding, file.size), tuple(tried))
        except ValueError as error:
            reasons.append(f"opencv: {error}")
            return Decoded(None, tuple(tried), "; ".join(reasons))
    for name, decode in DECODERS if file.suits_dali() else DECODERS[1:]:
        tried.append(name)
        try:
            image = decode(file.data)
        except ValueError as error:
            reasons.append(f"{name}: {error}")
            continue
        if image.shape[:2] == file.size:
            return Decoded(_cut(image, decoding), tuple(tried))
        reasons.append(f"{name}: {_other_size(image, file)}")
    return Decoded(None, tuple(tried), "; ".join(reasons))


def _cut(image: np.ndarray, decoding: Decoding) -> np.ndarray:
    region = decoding.region
    return image[region.y0 : region.y1, region.x0 : region.x1]


def _other_size(image: np.ndarray, file: Encoded) -> str:
    height, width = file.size
    return (
        f"wanted {width}x{height} pixels as indexed, got {image.shape[1]}x{image.shape[0]}; "
        "the file changed: index again"
    )
