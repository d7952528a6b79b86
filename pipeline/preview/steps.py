"""What each step of a policy did to a sample, from the calls recorded while it was made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from ..plan.plan import Normalization
from ..policy.registry import is_composition, load_albumentations
from ..transform.params import TransformCall, leaf_transforms
from .phrases import short, words_of


@dataclass(frozen=True, slots=True)
class StepShown:
    """One outermost transform of a policy, and what it did to a sample."""

    name: str
    words: str = ""
    """The sampled parameters."""
    applied: bool = True
    p: float = 1.0
    """How often it is applied."""
    inner: tuple[StepShown, ...] = ()
    """Of a composition, those of its transforms that were applied, in that order."""


def steps_shown(transforms: Sequence[Any], done: Sequence[TransformCall]) -> tuple[StepShown, ...]:
    """Describe what each outermost transform did.

    Args:
        transforms: of the policy, as it is built.
        done: the recorded calls; their indices count the transforms inside compositions too.
    """
    return tuple(_shown(transforms, done, count()))


def _shown(
    transforms: Sequence[Any], done: Sequence[TransformCall], slots: Iterator[int]
) -> Iterator[StepShown]:
    for transform in transforms:
        name, p = type(transform).__name__, float(transform.p)
        leaves = {next(slots): leaf for leaf in leaf_transforms([transform])}
        own = [decision for decision in done if decision.transform_index in leaves]
        if is_composition(transform):
            inner = tuple(
                StepShown(
                    type(leaves[one.transform_index]).__name__, words_of(leaves[one.transform_index], one)
                )
                for one in own
            )
            yield StepShown(name, "", bool(inner), p, inner)
        elif _tells_nothing(transform):
            yield StepShown(name, "a class with its own __call__, whose calls are not recorded", True, p)
        elif own:
            yield StepShown(name, words_of(transform, own[0]), True, p)
        else:
            yield StepShown(name, "", False, p)


def _tells_nothing(transform: Any) -> bool:
    return type(transform).__call__ is not load_albumentations().BasicTransform.__call__


NORMALIZE = StepShown("Normalize", "not applied here")
"""The step that runs last, in one pass into the batch."""


def normalization_note(normalization: Normalization) -> str:
    """Note that images are shown without normalisation."""
    mean, std = short(list(normalization.mean)), short(list(normalization.std))
    return f"Images are shown before Normalize (mean {mean}, std {std}), which runs last, in one pass into the batch."
