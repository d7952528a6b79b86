"""Train, validation and test splits: from the names of folders or columns, or by a stable keyed hash."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ..errors import PlanError, SourceError

if TYPE_CHECKING:
    from .sources.remarks import Remarks

DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.8, "val": 0.1, "test": 0.1}

_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "validate": "val",
    "dev": "val",
    "eval": "val",
    "evaluation": "val",
    "test": "test",
    "testing": "test",
}
_AFFIXES = re.compile(r"(images?|imgs?)[ _-]?|[ _-]?(set|split|data|images?|imgs?|samples)|[ _-]?(19|20)\d\d")
"""Prefixes and suffixes of split names, as in ``train2017``, ``test_set`` and ``images_val``."""


def canonical_split(name: str) -> str | None:
    """Return ``train``, ``val`` or ``test`` for a common spelling of it; None for any other name."""
    name = name.strip().casefold()
    return _NAMES.get(name) or _NAMES.get(_AFFIXES.sub("", name))


def split_names(names: Iterable[str], remarks: Remarks) -> dict[str, str]:
    """Map the split names of a source to those of the index, noting the names that change.

    Common spellings become ``train``, ``val`` and ``test``. If a source has several spellings of one split, such as ``dev``
    and ``val``, they remain different splits.
    """
    spellings: dict[str, set[str]] = {}
    for name in names:
        spellings.setdefault(canonical_split(name) or name, set()).add(name.strip().casefold())
    result: dict[str, str] = {}
    for name in dict.fromkeys(names):
        split = canonical_split(name) or name
        if len(spellings[split]) > 1:
            result[name] = name.strip().casefold()
            remarks.add("assumed", f"names of the split {split!r} to be different splits", name)
        else:
            result[name] = split
            if name != split:
                remarks.add("assumed", f"names to mean the split {split!r}", name)
    return result


def hash_to_unit(key: str, seed: int) -> float:
    """Map a key to [0, 1) by BLAKE2b keyed with the seed, independent of machine and other keys."""
    digest = hashlib.blake2b(
        key.encode("utf-8", "surrogateescape"),
        digest_size=8,
        key=hashlib.blake2b(str(seed).encode(), digest_size=16).digest(),
    ).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def assign_splits(keys: Iterable[str], fractions: Mapping[str, float], seed: int) -> list[str]:
    """Assign a split to every key by its hash; adding or removing other keys never changes it.

    Args:
        keys: keys of samples.
        fractions: fraction of each split, 0..1, summing to 1. Another order gives another assignment.
        seed: of the hash.

    Raises:
        SourceError: the fractions are invalid.
    """
    check_fractions(fractions)
    names = [name for name, share in fractions.items() if share > 0]
    bounds: list[float] = []
    for name in names:
        bounds.append(fractions[name] + (bounds[-1] if bounds else 0.0))
    bounds[-1] = 1.0  # without a gap by rounding

    def split_of(key: str) -> str:
        value = hash_to_unit(key, seed)
        return next(name for name, bound in zip(names, bounds, strict=True) if value < bound)

    return [split_of(key) for key in keys]


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Check that fractions are non-negative and sum to 1.

    Raises:
        SourceError: a negative or non-finite fraction, an unnamed split, or a sum that is not 1.
    """
    expected = (
        "fractions: expected named fractions that sum to 1, such as {'train': 0.8, 'val': 0.1, 'test': 0.1}"
    )
    if not isinstance(fractions, Mapping):
        raise SourceError(
            f"{expected}, got {type(fractions).__name__}; pass a mapping from names to fractions"
        )
    if not fractions or any(not isinstance(name, str) or not name.strip() for name in fractions):
        raise SourceError(f"{expected}, got {dict(fractions)}; name at least one split")
    if any(isinstance(share, bool) or not isinstance(share, int | float) for share in fractions.values()):
        raise SourceError(f"{expected}, got {dict(fractions)}; make every fraction a number")
    if any(not math.isfinite(share) or share < 0 for share in fractions.values()):
        raise SourceError(f"{expected}, got {dict(fractions)}; make every fraction 0 or more")
    total = sum(fractions.values())
    if abs(total - 1) > 1e-6:
        raise SourceError(f"{expected}, got a sum of {total:g}; change {dict(fractions)} so that it is 1")


def parse_fractions(text: str) -> dict[str, float]:
    """Parse ``train=0.8,val=0.1,test=0.1``, the format of the command line.

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
                f"split: expected 'train=0.8,val=0.1,test=0.1', got {text!r}; correct {part!r}"
            ) from error
    return fractions
