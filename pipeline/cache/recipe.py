"""Cache recipe: everything that determines cached pixels besides the source file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..atomic_io import write_json
from ..formats.integrity import COLOR_RULE_VERSION
from .permissions import RECIPE_FILE

if TYPE_CHECKING:
    from ..compiler.program import Program

SHARD_VERSION = 1
"""Version of the shard layout."""
Form = Literal["raw", "jpeg", "features"]
"""What the entries of a shard are: raw pixels, JPEGs, or features of a network, whose reader checks their shape."""
PACKAGES = ("albucore", "albumentations", "nvidia-dali-cuda130", "opencv-python-headless", "pillow")
"""Packages that decode and transform; another version may produce other pixels."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How cached pixels are produced. Plans with equal recipes share cached images, whatever their later transforms."""

    steps: tuple[dict[str, Any], ...]
    """Leading deterministic transforms of ``preprocess``, as in YAML."""
    decode: str
    """The plan's ``decode``."""
    quality: int | None
    """JPEG quality; None for raw pixels."""
    versions: tuple[tuple[str, str], ...]
    """Names and versions of ``PACKAGES``."""
    color_rule: int = COLOR_RULE_VERSION

    @property
    def form(self) -> Form:
        """Return the kind of entries in its shards."""
        return "raw" if self.quality is None else "jpeg"

    def dump(self) -> dict[str, Any]:
        """Return the content of the fingerprint and of ``recipe.json``."""
        return {
            "steps": list(self.steps),
            "decode": self.decode,
            "format": self.form,
            "quality": self.quality,
            "color_rule": self.color_rule,
            "versions": dict(self.versions),
            "shard_version": SHARD_VERSION,
        }

    def fingerprint(self) -> str:
        """Return a hash of 16 hex digits, the name of the folder."""
        text = json.dumps(self.dump(), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def save(self, folder: Path) -> None:
        """Write ``recipe.json``.

        Raises:
            OutputError: the file cannot be written.
        """
        write_json(folder / RECIPE_FILE, self.dump())


def recipe_of(program: Program) -> Recipe:
    """Return the cache recipe of a program."""
    plan = program.plan
    assert plan.cache is not None, "only plans with a cache have a recipe"
    steps = tuple(
        json.loads(json.dumps(spec.dump(), default=str)) for spec in program.preprocess[: program.num_cached]
    )
    return Recipe(steps, plan.decode, plan.cache.jpeg_quality, package_versions())


def package_versions(*more: str) -> tuple[tuple[str, str], ...]:
    """Return names and versions of ``PACKAGES`` and of further packages."""
    return tuple((package, version(package)) for package in (*PACKAGES, *more))
