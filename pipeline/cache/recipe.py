"""The recipe: all that decides what cached pixels look like, besides the file they come from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic_io import write_json
from ..formats.integrity import COLOR_RULE_VERSION
from .permissions import RECIPE_FILE

if TYPE_CHECKING:
    from ..compiler.program import Program

SHARD_VERSION = 1
"""Raised when shards are laid out in another way."""
PACKAGES = ("albucore", "albumentations", "nvidia-dali-cuda130", "opencv-python-headless", "pillow")
"""What decodes and transforms: another version of any of them may give other pixels."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How cached pixels are made. Plans with equal recipes share what is cached, whatever follows in them."""

    steps: tuple[dict[str, Any], ...]
    """The deterministic beginning of ``preprocess`` in its YAML form."""
    decode: str
    """The plan's ``decode``."""
    quality: int | None
    """Of JPEGs; None for raw pixels."""
    versions: tuple[tuple[str, str], ...]
    """Package and version of what decodes and transforms."""
    color_rule: int = COLOR_RULE_VERSION

    def dump(self) -> dict[str, Any]:
        """Return what is hashed, and what people read in ``recipe.json``."""
        return {
            "steps": list(self.steps),
            "decode": self.decode,
            "format": "raw" if self.quality is None else "jpeg",
            "quality": self.quality,
            "color_rule": self.color_rule,
            "versions": dict(self.versions),
            "shard_version": SHARD_VERSION,
        }

    def fingerprint(self) -> str:
        """Hash to 16 hex digits, the name of the folder."""
        text = json.dumps(self.dump(), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def save(self, folder: Path) -> None:
        """Write ``recipe.json``.

        Raises:
            OutputError: the disk does not take it.
        """
        write_json(folder / RECIPE_FILE, self.dump())


def recipe_of(program: Program) -> Recipe:
    """Say how the pixels that a program caches are made."""
    plan = program.plan
    assert plan.cache is not None, "only plans with a cache have a recipe"
    steps = tuple(
        json.loads(json.dumps(spec.dump(), default=str)) for spec in program.preprocess[: program.num_cached]
    )
    versions = tuple((package, version(package)) for package in PACKAGES)
    return Recipe(steps, plan.decode, plan.cache.jpeg_quality, versions)
