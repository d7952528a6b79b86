"""The deterministic part of a plan, which a checkpoint holds: what turns a file into the pixels that evaluation reads.

It travels as JSON and is untrusted data: nothing is imported or built before ``SavedPlan.to_plan``, and that imports
transforms of other modules only where the caller allows them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ...pipeline.config.checked_model import build_checked
from ...pipeline.config.imports import AllowedModules
from ...pipeline.config.safe_yaml import MAX_BYTES, parse_document
from ...pipeline.plan.plan import BatchOptions, Plan
from ...pipeline.text import first_few

KEYS = ("preprocess", "evaluate", "decode")
"""Keys of a plan that determine the pixels of its evaluation, besides its files."""


@dataclass(frozen=True)
class SavedPlan:
    """Transforms and decoding of a plan's evaluation, as plain values."""

    values: Mapping[str, Any]
    """``preprocess`` and ``evaluate`` as lists of transforms, and ``decode``."""

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """Take the deterministic part of a plan."""
        return cls(json.loads(json.dumps({key: value for key, value in plan.dump().items() if key in KEYS})))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the JSON of a checkpoint; transforms are not looked up yet.

        Raises:
            ValueError: it is not JSON of a plan's deterministic part, or exceeds the limits of a document.
        """
        if len(text) > MAX_BYTES:
            raise ValueError(f"expected a plan of at most {MAX_BYTES:,} characters, got {len(text):,}")
        if not text.startswith("{"):
            raise ValueError("expected the plan as names and values, got another document")
        values = parse_document(text, "plan")
        if not isinstance(values, dict) or not set(values) <= set(KEYS):
            names = [key for key in values if key not in KEYS] if isinstance(values, dict) else []
            raise ValueError(f"expected a plan of {', '.join(KEYS)}, got {first_few(names) or 'no mapping'}")
        return cls(values)

    @classmethod
    def from_job(cls, job: Mapping[str, Any]) -> Self | None:
        """Take the plan from the flattened keys of a training job, as older checkpoints hold it; None without one."""
        values = {key: job[f"plan.{key}"] for key in KEYS if f"plan.{key}" in job}
        return cls.parse(json.dumps(values)) if "preprocess" in values else None

    def dump(self) -> str:
        """Return the JSON for a checkpoint."""
        return json.dumps(self.values, sort_keys=True)

    def to_plan(
        self,
        index: Path,
        *,
        batch_size: int = BatchOptions().size,
        allow_import: Sequence[str] = (),
        **keys: Any,
    ) -> Plan:
        """Build the plan that makes the same pixels from the images of an index.

        Args:
            index: path of the index.
            batch_size: images per batch.
            allow_import: modules, including submodules, that transforms may be imported from; importing runs their code.
            keys: further keys of the plan, such as ``errors``.

        Raises:
            PlanError: a transform does not exist, is not allowed or has a wrong option.
        """
        content = {**self.values, **keys, "index": str(index), "batch": {"size": batch_size}}
        allowed = AllowedModules.from_names(allow_import)
        return build_checked(Plan, content, where="plan of the checkpoint", folder=Path(), allowed=allowed)
