"""Which split a sample belongs to: by name of a folder or column, or by a keyed hash that never moves it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping

from ..errors import PlanError, SourceError

DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.8, "val": 0.1, "test": 0.1}

_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def canonical_split(name: str) -> str | None:
    """Say which of ``train``, ``val`` and ``test`` a usual name means; None for any other name."""
    return _NAMES.get(name.strip().casefold())


def uniform(key: str, seed: int) -> float:
    """Map a key to [0, 1) by BLAKE2b keyed with the seed: the same on every machine and in any company."""
    digest = hashlib.blake2b(
        key.encode("utf-8", "surrogateescape"),
        digest_size=8,
        key=hashlib.blake2b(str(seed).encode(), digest_size=16).digest(),
    ).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def assign_splits(keys: Iterable[str], fractions: Mapping[str, float], seed: int) -> list[str]:
    """Give every key a split; adding or removing other keys never moves it.

    Args:
        keys: keys of samples.
        fractions: share of each split, 0..1, together 1. Their order matters: another order is another split.
        seed: of the hash.

    Raises:
        SourceError: the fractions are not shares of a whole.
    """
    check_fractions(fractions)
    names = [name for name, share in fractions.items() if share > 0]
    bounds: list[float] = []
    for name in names:
        bounds.append(fractions[name] + (bounds[-1] if bounds else 0.0))
    bounds[-1] = 1.0  # rounding must not leave a gap at the end

    def split_of(key: str) -> str:
        place = uniform(key, seed)
        return next(name for name, bound in zip(names, bounds, strict=True) if place < bound)

    return [split_of(key) for key in keys]


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Check that fractions are shares of a whole.

    Raises:
        SourceError: a negative or non-finite share, an unnamed split, or a sum that is not 1.
    """
    wanted = "fractions: wanted named shares that sum to 1, such as {'train': 0.8, 'val': 0.1, 'test': 0.1}"
    if not fractions or any(not name.strip() for name in fractions):
        raise SourceError(f"{wanted}, got {dict(fractions)}; name at least one split")
    if any(not math.isfinite(share) or share < 0 for share in fractions.values()):
        raise SourceError(f"{wanted}, got {dict(fractions)}; make every share 0 or more")
    total = sum(fractions.values())
    if abs(total - 1) > 1e-6:
        raise SourceError(f"{wanted}, got a sum of {total:g}; change {dict(fractions)} so that it is 1")


def parse_fractions(text: str) -> dict[str, float]:
    """Read ``train=0.8,val=0.1,test=0.1``, as the command line takes it.

    Raises:
        PlanError: a part is not ``name=number``.
    """
    fractions: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        try:
            fractions[name.strip()] = float(share)
        except ValueError as error:
            raise PlanError(
                f"split: wanted 'train=0.8,val=0.1,test=0.1', got {text!r}; mend {part!r}"
            ) from error
    return fractions
