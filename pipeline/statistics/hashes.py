"""Perceptual hashes of 64 bits, also one that is equal for the eight turns and mirror images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .working_copies import shrink_to

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE, NUM_FREQUENCIES = 32, 8
HASH_BYTES = 8


def _cosines() -> NDArray[np.int64]:
    """Return the first rows of the discrete cosine transform, as whole numbers so that results are exact."""
    angles = np.pi * np.outer(np.arange(NUM_FREQUENCIES), 2 * np.arange(SIDE) + 1) / (2 * SIDE)
    return np.asarray(np.rint(4096 * np.cos(angles)), np.int64)


_COSINES = _cosines()
_NUMBERS = np.arange(NUM_FREQUENCIES**2).reshape(NUM_FREQUENCIES, NUM_FREQUENCIES)
_DOWN, _ACROSS = np.indices(_NUMBERS.shape)
_ORDER = np.lexsort((_DOWN.ravel(), (_DOWN + _ACROSS).ravel()))
"""Numbers of the coefficients from low to high frequencies."""
_PERMUTATIONS = np.repeat([_NUMBERS.ravel()[_ORDER], _NUMBERS.T.ravel()[_ORDER]], 4, axis=0)
"""Coefficients of each orientation in this order, (8, 64): four as they are and four transposed."""
_SIGNS = np.tile(
    [(-1) ** (down * _DOWN + across * _ACROSS).ravel()[_ORDER] for down in (0, 1) for across in (0, 1)],
    (2, 1),
)
"""Signs of the same: odd coefficients of a mirrored axis are negated."""


def hash_measures(working_gray: NDArray[np.uint8]) -> dict[str, Any]:
    """Hash the gray working copy; similar images differ in few bits.

    ``phash``: signs of the 8x8 lowest frequencies of the discrete cosine transform of 32x32 pixels, without the mean (Zauner
    2010; with 0 for his median). ``phash_invariant``: the same after turning and mirroring to a canonical orientation.
    ``dhash``: whether brightness increases to the right, of 9x8 pixels (Krawetz 2013).
    """
    coefficients = dct(working_gray)
    steps = shrink_or_repeat(working_gray, 9, 8).astype(np.int16)
    return {
        "phash": _sign_bits(coefficients),
        "phash_invariant": _sign_bits(canonical(coefficients)),
        "dhash": np.packbits(steps[:, 1:] > steps[:, :-1]).tobytes(),
    }


def dct(working_gray: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the 8x8 lowest frequencies of the image at 32x32 pixels, scaled to whole numbers."""
    return np.asarray(_COSINES @ shrink_or_repeat(working_gray, SIDE, SIDE).astype(np.int64) @ _COSINES.T)


def canonical(coefficients: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the orientation whose coefficients, from low to high frequencies, are the largest in lexicographic order.

    Mirroring an image negates the odd coefficients of an axis and turning it also transposes them, so all eight orientations
    come from one transform. Values decide instead of bits, so that the decision is made by the largest coefficients.
    """
    variants = coefficients.ravel()[_PERMUTATIONS] * _SIGNS
    largest = max(variants.tolist())
    canonical_flat = np.empty_like(variants[0])
    canonical_flat[_ORDER] = largest
    return np.asarray(canonical_flat.reshape(coefficients.shape), np.int64)


def shrink_or_repeat(gray: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize by the mean over areas; pixels of smaller images are repeated first."""
    down, across = -(-height // gray.shape[0]), -(-width // gray.shape[1])
    if down > 1 or across > 1:
        gray = gray.repeat(down, axis=0).repeat(across, axis=1)
    return shrink_to(gray, width=width, height=height)


def _sign_bits(coefficients: NDArray[np.int64]) -> bytes:
    positive = coefficients.ravel() > 0
    positive[0] = False
    return np.packbits(positive).tobytes()
