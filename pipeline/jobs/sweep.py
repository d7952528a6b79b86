"""Sweeps: a training job with several values of some of its keys, one trial for each combination.

A sweep file::

    keys:
      optimizer.lr: {min: 0.0001, max: 0.01, log: true}    # a range
      fine_tune_from: [blocks.5, blocks.6]                 # or a list
    trials: 12                                             # random draws; without it, every combination of lists

Keys are those of the job file, with dots between the levels; numbers are positions in lists, as in
``plan.augment.0.RandomResizedCrop.scale``. The trials follow from the file alone, whatever the engine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from ..config.checked_model import CheckedModel, build_checked
from ..config.safe_yaml import read_yaml
from ..errors import PlanError
from ..rng import derive_seed, numpy_generator
from .contracts import Repeatable, TrainingJob
from .fingerprint import fingerprint_of
from .job_file import load_job

MAX_TRIALS = 10_000
DIGITS = 4
"""Significant digits of numbers that are drawn."""


class Range(CheckedModel):
    """Numbers from ``min`` to ``max``, both included; whole ones if both are."""

    min: int | float
    max: int | float
    log: bool = False
    """Whether the logarithm is uniform."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if not self.min < self.max or (self.log and self.min <= 0):
            what = "0 < min < max with log" if self.log else "min < max"
            raise ValueError(f"expected {what}, got min {self.min} and max {self.max}; correct them")
        return self

    def at(self, share: float) -> int | float:
        """Return the number at a share of the range, of its logarithm with ``log``."""
        whole = isinstance(self.min, int) and isinstance(self.max, int)
        if self.log:
            value = math.exp(math.log(self.min) + share * (math.log(self.max) - math.log(self.min)))
        elif whole:
            value = math.floor(self.min + share * (self.max - self.min + 1))
        else:
            value = self.min + share * (self.max - self.min)
        value = round(value) if whole else float(f"{value:.{DIGITS}g}")
        return min(max(value, self.min), self.max)


class Sweep(CheckedModel):
    """Keys of a job with the values to try."""

    keys: dict[str, Range | list[Any]] = Field(min_length=1)
    """A range, or a list of values."""
    trials: int | None = Field(default=None, ge=1, le=MAX_TRIALS)
    """Number of random draws; None for every combination of lists."""
    seed: int = Field(default=0, ge=0)
    """Of the draws."""

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: dict[str, Range | list[Any]]) -> dict[str, Range | list[Any]]:
        for name, values in keys.items():
            if not all(name.split(".")) or name.split(".")[0] in ("job", "feed", "monitor"):
                raise ValueError(
                    f"expected keys of the job other than job, feed and monitor, with dots between levels, got {name!r}; correct it"
                )
            if isinstance(values, list) and not values:
                raise ValueError(f"{name}: expected at least one value, got none; add some")
        return keys

    @model_validator(mode="after")
    def _check_number(self) -> Self:
        ranges = [name for name, values in self.keys.items() if isinstance(values, Range)]
        if ranges and self.trials is None:
            raise ValueError(
                f"trials: expected a number of draws from the range of {ranges[0]}, got none; add it"
            )
        number = math.prod(len(values) for values in self.keys.values() if isinstance(values, list))
        if self.trials is None and number > MAX_TRIALS:
            raise ValueError(
                f"keys: expected at most {MAX_TRIALS:,} combinations, got {number:,}; add trials"
            )
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load a sweep file.

        Raises:
            PlanError: the file cannot be read, or a key is wrong.
        """
        return build_checked(cls, read_yaml(path), where=str(path), folder=path.parent)

    def values(self) -> list[dict[str, Any]]:
        """Return the values of each trial, by key."""
        if self.trials is None:
            lists = [values for values in self.keys.values() if isinstance(values, list)]
            return [dict(zip(self.keys, chosen, strict=True)) for chosen in product(*lists)]
        return [
            {name: self._draw(name, values, number) for name, values in self.keys.items()}
            for number in range(self.trials)
        ]

    def _draw(self, name: str, values: Range | list[Any], number: int) -> Any:
        share = float(numpy_generator(derive_seed("sweep", self.seed, number, name)).random())
        return values.at(share) if isinstance(values, Range) else values[int(share * len(values))]


@dataclass(frozen=True)
class Trial:
    """A training job of a sweep."""

    values: Mapping[str, Any]
    """By key."""
    job: TrainingJob
    name: str
    """``trial-FINGERPRINT``, of all that determines the result; the name of its folder."""


def load_trials(
    sweep: Sweep, path: Path, *, default: str, allow_import: Sequence[str] = ()
) -> tuple[Trial, ...]:
    """Build the trials of a sweep; equal ones count once.

    Args:
        sweep: the sweep.
        path: the job file.
        default: name of the job if the file has no ``job`` key.
        allow_import: modules that the job and its plan may be imported from.

    Raises:
        PlanError: the job file or a value is wrong, or the job cannot be compared with itself.
    """
    trials: dict[str, Trial] = {}
    base = load_job(path, default=default, allow_import=allow_import, contract=TrainingJob)
    document = read_yaml(path)
    for values in sweep.values():
        changes: dict[str, Any] = {}
        for key, value in values.items():
            first, *rest = key.split(".")
            if first == "plan" and "plan" not in changes:
                changes["plan"] = base.plan.dump()
            content = changes[first] if first in changes else document.get(first)
            changes[first] = with_value(content, rest, value, key)
        try:
            job = load_job(
                path, default=default, allow_import=allow_import, contract=TrainingJob, changes=changes
            )
        except PlanError as error:
            raise PlanError(f"sweep: {format_values(values)}: {error}") from error
        if not isinstance(job, Repeatable):
            raise PlanError(
                f"sweep: expected a job with `result_config`, got {type(job).__name__}; add the method, or train without a sweep"
            )
        facts = [job.result_config(), job.view.num_epochs, dict(values)]
        name = f"trial-{fingerprint_of(facts)}"
        trials[name] = Trial(values, job, name)
    return tuple(trials.values())


def with_value(content: Any, keys: Sequence[str], value: Any, where: str) -> Any:
    """Return a copy of nested mappings and lists with another value at some keys; missing mappings are added.

    Raises:
        PlanError: a level is neither a mapping nor a list with this position.
    """
    if not keys:
        return value
    first, rest = keys[0], keys[1:]
    if isinstance(content, list) and first.isdecimal() and int(first) < len(content):
        items = list(content)
        items[int(first)] = with_value(items[int(first)], rest, value, where)
        return items
    if content is None or isinstance(content, Mapping):
        found = dict(content or {})
        return {**found, first: with_value(found.get(first), rest, value, where)}
    raise PlanError(
        f"sweep: {where}: expected a section with the key {first!r} in the job file, got {content!r}; write it as a mapping there"
    )


def format_values(values: Mapping[str, Any]) -> str:
    """Format the values of a trial, such as ``optimizer.lr 0.01, epochs 5``."""
    return ", ".join(f"{name} {value}" for name, value in values.items())
