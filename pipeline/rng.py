"""Counter-based random numbers: a function of (seed, epoch, sample), independent of threads and order.

Each sample has its own stream of Philox 4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
keyed by a 128-bit BLAKE2b hash of (purpose, seed, epoch, sample key). The transforms of a policy draw from it in the
order in which they are listed, so that the parameters of a transform depend on (seed, epoch, sample, transform) only.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np


def derive_seed(purpose: str, seed: int, epoch: int, name: str) -> int:
    """Hash to a 128-bit seed; ``purpose`` separates the streams of shuffling, augmentation and mixing."""
    message = f"{purpose}\x00{seed}\x00{epoch}\x00{name}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(message, digest_size=16).digest(), "little")


def random_words(purpose: str, seed: int, epoch: int, name: str, num_words: int) -> np.ndarray:
    """Return the first uint64 values of a Philox stream."""
    return np.random.Philox(key=derive_seed(purpose, seed, epoch, name)).random_raw(num_words)


def numpy_generator(seed: int) -> np.random.Generator:
    """Create a NumPy generator from a 128-bit seed."""
    return np.random.Generator(np.random.Philox(key=seed))


def python_random(seed: int) -> random.Random:
    """Create a ``random.Random``, which Albumentations uses besides NumPy's generator, from a 128-bit seed."""
    return random.Random(seed)  # noqa: S311  (augmentation, not cryptography)


class ReseedableGenerator:
    """A NumPy and a Python generator that are reseeded for each sample instead of created anew.

    The streams equal those of new generators. Reseeding is faster: a new Philox also requests system entropy, which it
    does not use. Not thread-safe.
    """

    def __init__(self) -> None:
        self._philox = np.random.Philox(key=0)
        self._state = self._philox.state
        self.generators = np.random.Generator(self._philox), python_random(0)

    def reseed(self, seed: int) -> tuple[np.random.Generator, random.Random]:
        """Reset both generators to the start of the stream of a 128-bit seed."""
        key = self._state["state"]["key"]
        key[0], key[1] = seed & _LOW_64_BITS, seed >> 64
        self._philox.state = self._state
        self.generators[1].seed(seed)
        return self.generators


_LOW_64_BITS = (1 << 64) - 1
