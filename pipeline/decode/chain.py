"""Decode a batch with whoever can: DALI, then OpenCV, then Pillow. One bad file costs one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .dali import DALI_FORMATS, DALI_MODES, DaliDecoder
from .pillow import decode_opencv, decode_pillow

DECODERS = (("opencv", decode_opencv), ("pillow", decode_pillow))
"""What is tried without DALI, in order."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A file's bytes with what the index says of them."""

    data: bytes
    format: str
    mode: str
    orientation: int

    def suits_dali(self) -> bool:
        """Say whether DALI follows the stated colour rule for this kind of file."""
        oriented_by_dali = self.orientation == 1 or self.format == "jpeg"
        return self.format in DALI_FORMATS and self.mode in DALI_MODES and oriented_by_dali


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of one file: uint8 HWC RGB pixels and who decoded them, or why nobody could."""

    image: np.ndarray | None
    decoders: tuple[str, ...]
    """Those that were tried; the last one succeeded if there is an image."""
    reason: str = ""


class DecodeChain:
    """DALI for whole batches, OpenCV and Pillow for what it leaves. One thread at a time."""

    def __init__(self, dali: DaliDecoder) -> None:
        self._dali = dali

    def decode(self, files: Sequence[Encoded]) -> list[Decoded]:
        """Decode files in order, at most the DALI pipeline's batch size at once."""
        for_dali = [i for i, file in enumerate(files) if file.suits_dali()]
        results: dict[int, Decoded] = {}
        for start in range(0, len(for_dali), self._dali.max_batch_size):
            chunk = for_dali[start : start + self._dali.max_batch_size]
            for i, found in zip(chunk, self._dali.decode([files[i].data for i in chunk]), strict=True):
                if isinstance(found, str):
                    results[i] = decode_alone(files[i], [f"dali: {found}"])
                else:
                    results[i] = Decoded(found, ("dali",))
        return [results[i] if i in results else decode_alone(file, []) for i, file in enumerate(files)]

    def close(self) -> None:
        """Close DALI."""
        self._dali.close()


def decode_alone(file: Encoded, reasons: list[str]) -> Decoded:
    """Decode one file without DALI; any thread may call this.

    OpenCV is next for what suits DALI; alpha, palettes, CMYK and 16-bit gray go to Pillow, whose conversion
    follows the stated rule.
    """
    tried = ["dali"] if reasons else []
    for name, decode in DECODERS if file.suits_dali() else DECODERS[1:]:
        tried.append(name)
        try:
            return Decoded(decode(file.data), tuple(tried))
        except ValueError as error:
            reasons.append(f"{name}: {error}")
    return Decoded(None, tuple(tried), "; ".join(reasons))
