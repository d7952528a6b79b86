"""Decides what the files of a first run are, and sums them up."""

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
from ..zoo.expected_policy import INTERPOLATIONS, interpolation_of
from .dataset import Dataset
from .files import AUDIT, INDEX, PLAN, RUN, TRAIN, audit_text, plan_text, train_text
from .folder import UNCHANGED, WRITTEN

DEFAULT_MODEL = "resnet50"
"""Known to everybody, in torchvision with weights that any file or mirror has, quick enough for a CPU, and a network of
convolutions, whose Grad-CAM maps are fine and well understood."""


@dataclass(frozen=True)
class FirstRun:
    """The files of a first run, decided by what an index holds and how a model's weights expect their images."""

    dataset: Dataset
    model: ModelSpec
    config: DataConfig

    @classmethod
    def of(cls, index: Index, model: ModelSpec) -> FirstRun:
        """Decide for an index and a model.

        Raises:
            ModelError: no such model.
        """
        return cls(Dataset(index), model, data_config(model))

    def texts(self) -> dict[str, str]:
        """Return the text of each file; the jobs are there only where a classifier can be trained."""
        texts = {PLAN: plan_text(self.dataset, self.model, self.config)}
        splits = self.dataset.splits
        if self.dataset.obstacle is None and splits is not None:
            texts[TRAIN] = train_text(self.dataset, self.model)
            texts[AUDIT] = audit_text(splits, self.model)
        return texts

    def commands(self, out: Path) -> list[str]:
        """Name the next commands, to be pasted into a shell."""
        plan, train, audit = (shlex.quote(str(out / name)) for name in (PLAN, TRAIN, AUDIT))
        page, results, report = (shlex.quote(str(out / name)) for name in ("preview.html", RUN, "audit"))
        preview = f"lightwell preview {plan} --out {page}"
        if self.dataset.obstacle is not None:
            return [preview, f"lightwell explain {plan}"]
        return [
            preview,
            f"lightwell train {train} --out {results}",
            f"lightwell audit {audit} --out {report}",
        ]

    def lines(self, out: Path, done: Mapping[str, str]) -> list[str]:
        """Sum up in lines for people what was decided, written and comes next."""
        return [
            *self._decided(),
            _words(out, done),
            "next:",
            *(f"  {command}" for command in self.commands(out)),
        ]

    def as_dict(self, out: Path, done: Mapping[str, str]) -> dict[str, Any]:
        """Sum up for machines."""
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
            "no_training_because": self.dataset.obstacle,
            "notes": self.dataset.notes(self.config.size),
            "commands": self.commands(out),
            "index": self.dataset.index.summary(),
        }

    def _decided(self) -> list[str]:
        height, width = self.config.size
        names = {number: name for name, number in INTERPOLATIONS.items()}
        lines = [self._split_line()]
        start = "random initialisation" if self.model.weights == "none" else "pretrained weights"
        lines.append(
            f"model: {self.model.name}, {start}; images of {height} x {width} pixels, {names[interpolation_of(self.config)]}, "
            f"mean {_numbers(self.config.mean)}, std {_numbers(self.config.std)}"
        )
        lines += self.dataset.notes(self.config.size)
        if (obstacle := self.dataset.obstacle) is not None:
            lines.append(f"no {TRAIN} and no {AUDIT}: {obstacle}")
        return lines

    def _split_line(self) -> str:
        source = self.dataset.index.source
        if source.get("split_from") != "hash":
            return "splits: those of the source"
        shares = ", ".join(f"{100 * share:.4g} % {name}" for name, share in source["fractions"].items())
        return f"splits: {shares}, by a hash of each image's path, so that an image never changes its split"


def model_of(name: str, weights: str) -> ModelSpec:
    """Describe the model that is asked for; the path of weights is made absolute, as the files lie elsewhere."""
    is_file = weights.endswith(SUFFIXES) and not weights.startswith("package:")
    return ModelSpec(name=name, weights=str(Path(weights).expanduser().absolute()) if is_file else weights)


def index_path(out: Path) -> Path:
    """Return where the index of a first run lies."""
    return out / INDEX


def kept_index(out: Path) -> Index | None:
    """Load the index that an earlier run has left; None where there is none that can be read."""
    path = index_path(out)
    if not os.path.lexists(path):
        return None
    from ...pipeline.errors import SourceError

    try:
        return Index.load(path)
    except SourceError:
        return None  # writing the index says what it is


def index_state(before: Index | None, after: Index) -> str:
    """Say whether an index holds what it held before."""
    if before is None:
        return WRITTEN
    return UNCHANGED if before.fingerprint() == after.fingerprint() else "brought up to date"


def _words(out: Path, done: Mapping[str, str]) -> str:
    if set(done.values()) == {UNCHANGED}:
        return f"unchanged: all files in {out} are as they should be"
    told = [name if state == WRITTEN else f"{name} ({state})" for name, state in done.items()]
    return f"wrote into {out}: {', '.join(told)}"


def _numbers(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values) + "]"
