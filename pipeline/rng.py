"""Counter-based keys: every random decision is a function of (seed, epoch, sample), never of a thread.

A sample's stream is Philox 4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
keyed by 128 bits of BLAKE2b over (purpose, seed, epoch, sample key). The transforms of a policy draw from it in
the order in which they are written, so the decisions of a transform are a function of (seed, epoch, sample, transform).
"""

from __future__ import annotations

import hashlib
import random

import numpy as np


def derive_seed(purpose: str, seed: int, epoch: int, name: str) -> int:
    """Hash to 128 bits; ``purpose`` keeps the streams of shuffling, augmenting and mixing apart."""
    message = f"{purpose}\x00{seed}\x00{epoch}\x00{name}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(message, digest_size=16).digest(), "little")


def random_words(purpose: str, seed: int, epoch: int, name: str, num_words: int) -> np.ndarray:
    """Make the first uint64 of the Philox stream of a key."""
    return np.random.Philox(key=derive_seed(purpose, seed, epoch, name)).random_raw(num_words)


def numpy_generator(bits: int) -> np.random.Generator:
    """Make the NumPy generator of 128 key bits."""
    return np.random.Generator(np.random.Philox(key=bits))


def python_random(bits: int) -> random.Random:
    """Make the Python generator of 128 key bits, which Albumentations uses beside NumPy's."""
    return random.Random(bits)  # noqa: S311  (augmentation, not cryptography)


class ReseedableGenerator:
    """Both generators of a sample, made once and turned to one sample after another: the same streams, for less.

    A new Philox also asks the system for entropy that it does not use. One thread at a time.
    """

    def __init__(self) -> None:
        self._philox = np.random.Philox(key=0)
        self._state = self._philox.state
        self.generators = np.random.Generator(self._philox), python_random(0)

    def reseed(self, bits: int) -> tuple[np.random.Generator, random.Random]:
        """Set both to the beginning of the stream of 128 key bits."""
        key = self._state["state"]["key"]
        key[0], key[1] = bits & _HALF, bits >> 64
        self._philox.state = self._state
        self.generators[1].seed(bits)
        return self.generators


_HALF = (1 << 64) - 1
