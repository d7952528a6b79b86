"""Generate the files of ``lightwell init`` and their summary."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...pipeline.index.index import Index
from ..zoo.build import ModelSpec
from ..zoo.checkpoint_file import SUFFIXES
from ..zoo.data_config import DataConfig, data_config
from ..zoo.preprocessing import INTERPOLATIONS, interpolation_of
from .dataset import Dataset
from .files import AUDIT, INDEX, PLAN, RUN, TRAIN, audit_text, plan_text, train_text
from .folder import UNCHANGED, WRITTEN

DEFAULT_MODEL = "resnet50"
"""Well known, available in torchvision, fast enough on a CPU, and convolutional, so that Grad-CAM maps are fine-grained."""


@dataclass(frozen=True)
class FirstRun:
    """Generated files, derived from an index and the expected preprocessing of a model's weights."""

    dataset: Dataset
    model: ModelSpec
    config: DataConfig

    @classmethod
    def of(cls, index: Index, model: ModelSpec) -> FirstRun:
        """Create from an index and a model.

        Raises:
            ModelError: no such model.
        """
        return cls(Dataset(index), model, data_config(model))

    def texts(self) -> dict[str, str]:
        """Return the text of each file; jobs are included only if a classifier can be trained."""
        texts = {PLAN: plan_text(self.dataset, self.model, self.config)}
        splits = self.dataset.splits
        if self.dataset.no_training_reason is None and splits is not None:
            texts[TRAIN] = train_text(self.dataset, self.model)
            texts[AUDIT] = audit_text(splits, self.model)
        return texts

    def commands(self, out: Path) -> list[str]:
        """Return the next commands, quoted for a shell."""
        plan, train, audit = (shlex.quote(str(out / name)) for name in (PLAN, TRAIN, AUDIT))
        page, results, report = (shlex.quote(str(out / name)) for name in ("preview.html", RUN, "audit"))
        preview = f"lightwell preview {plan} --out {page}"
        if self.dataset.no_training_reason is not None:
            return [preview, f"lightwell explain {plan}"]
        return [
            preview,
            f"lightwell train {train} --out {results}",
            f"lightwell audit {audit} --out {report}",
        ]

    def lines(self, out: Path, done: Mapping[str, str]) -> list[str]:
        """Return a summary of settings, written files and next commands, as lines of text."""
        return [
            *self._settings(),
            _summary_line(out, done),
            "next:",
            *(f"  {command}" for command in self.commands(out)),
        ]

    def as_dict(self, out: Path, done: Mapping[str, str]) -> dict[str, Any]:
        """Return the summary as JSON types."""
        return {
            "out": str(out),
            "files": dict(done),
            "model": self.model.model_dump(mode="json"),
            "expects": {
                "size": list(self.config.size),
                "mean": list(self.config.mean),
                "std": list(self.config.std),
                "interpolation": self.config.interpolation,
                "crop": self.config.crop,
            },
            "no_training_because": self.dataset.no_training_reason,
            "notes": self.dataset.notes(self.config.size),
            "commands": self.commands(out),
            "index": self.dataset.index.summary(),
        }

    def _settings(self) -> list[str]:
        height, width = self.config.size
        names = {number: name for name, number in INTERPOLATIONS.items()}
        lines = [self._split_line()]
        start = "random initialisation" if self.model.weights == "none" else "pretrained weights"
        lines.append(
            f"model: {self.model.name}, {start}; images of {height} x {width} pixels, {names[interpolation_of(self.config)]}, "
            f"mean {_numbers(self.config.mean)}, std {_numbers(self.config.std)}"
        )
        lines += self.dataset.notes(self.config.size)
        if (no_training_reason := self.dataset.no_training_reason) is not None:
            lines.append(f"no {TRAIN} and no {AUDIT}: {no_training_reason}")
        return lines

    def _split_line(self) -> str:
        source = self.dataset.index.source
        if source.get("split_from") != "hash":
            return "splits: those of the source"
        shares = ", ".join(f"{100 * share:.4g} % {name}" for name, share in source["fractions"].items())
        return f"splits: {shares}, by a hash of each image's path, so that an image always stays in its split"


def model_spec(name: str, weights: str) -> ModelSpec:
    """Return a model spec; the path of weights is made absolute, since the files are in another folder."""
    is_file = weights.endswith(SUFFIXES) and not weights.startswith("package:")
    return ModelSpec(name=name, weights=str(Path(weights).expanduser().absolute()) if is_file else weights)


def index_path(out: Path) -> Path:
    """Return the path of the index in the output folder."""
    return out / INDEX


def load_existing_index(out: Path) -> Index | None:
    """Load the index of an earlier run; None if there is no readable one."""
    path = index_path(out)
    if not os.path.lexists(path):
        return None
    from ...pipeline.errors import SourceError

    try:
        return Index.load(path)
    except SourceError:
        return None  # reported when the index is written


def index_state(before: Index | None, after: Index) -> str:
    """Return whether an index was written, unchanged or updated."""
    if before is None:
        return WRITTEN
    return UNCHANGED if before.fingerprint() == after.fingerprint() else "brought up to date"


def _summary_line(out: Path, done: Mapping[str, str]) -> str:
    if set(done.values()) == {UNCHANGED}:
        return f"unchanged: all files in {out} are up to date"
    shown = [name if state == WRITTEN else f"{name} ({state})" for name, state in done.items()]
    return f"wrote into {out}: {', '.join(shown)}"


def _numbers(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values) + "]"
