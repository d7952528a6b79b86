"""Features of images after a flip or a change of color that the plan's training views have, always applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from .....pipeline.compiler.program import Program
from .....pipeline.jobs.fingerprint import fingerprint_of
from .....pipeline.jobs.stages import Batches, Inputs, Process, Source
from .....pipeline.plan.view import View
from .....pipeline.policy.spec import TransformSpec
from ..feature_plan import feature_stages
from ..records import RECORDS
from .effect_stage import measured_plan, sampled_keys
from .plan_steps import Step, steps_of

if TYPE_CHECKING:
    import pyarrow as pa

    from ....features.embed import FeatureStage
    from ..job import DatasetAudit

_FLIP, _FLOP = {"HorizontalFlip": {"p": 1.0}}, {"VerticalFlip": {"p": 1.0}}
_MIN_HUE = 5.0
"""Smaller shifts of OpenCV's hue (0 to 180) are no change of color."""
_Change = list[dict[str, Any]]


@dataclass(frozen=True)
class ChangingStep:
    """A step of the training views, and what it does at its strongest."""

    step: Step
    name: str
    """Of the change, in lower case."""
    phrase: str
    """Completes "copies", for example ``mirrored left to right``."""
    change: _Change
    """Transforms that are always applied."""


@dataclass(frozen=True)
class ChangedFeatureStage:
    """Features of a sample of the images after a change."""

    changing: ChangingStep
    features: FeatureStage
    """Of the changed images."""

    needs = (RECORDS,)

    @property
    def name(self) -> str:
        """Name with the change."""
        return f"{self.features.name}_{self.changing.name}"

    @property
    def schema(self) -> pa.Schema:
        """Schema of the features."""
        return self.features.schema

    def fingerprint(self) -> str:
        """Hash the network, the change and what it is applied to."""
        return fingerprint_of([self.changing.change, self.features.fingerprint()])

    def source(self, inputs: Inputs) -> Source:
        """Return the labelled images of the sample that the plan's effects are measured on."""
        job = self.features.job
        records = inputs[RECORDS].filter(pc.is_null(inputs[RECORDS]["problem"]))
        keys = sampled_keys(records["key"].to_pylist(), job.plan.seed)
        return Batches(job.plan, View(split=job.split, keys=keys))

    def open(self, inputs: Inputs) -> AbstractContextManager[Process]:
        """Load the network; yields the function that computes the features of a batch."""
        return self.features.open(inputs)


def changed_feature_stages(audit: DatasetAudit) -> tuple[ChangedFeatureStage, ...]:
    """Return a stage for each kind of change that training may make; none without a network or with less than two classes."""
    if not audit.plan.augment or len(audit.plan.load_index().classes) < 2:
        return ()
    return tuple(
        ChangedFeatureStage(changing, _changed(features, changing.change))
        for features in feature_stages(audit)
        for changing in changing_steps(audit)
    )


def changing_steps(audit: DatasetAudit) -> Iterator[ChangingStep]:
    """Yield the first step of each kind of change of the training views."""
    seen = set()
    for step in steps_of(Program.compile(measured_plan(audit.plan)), augment=True):
        found = _CHANGES.get(step.spec.name)
        change = None if found is None else found(step)
        if change is not None and change[0] not in seen:
            seen.add(change[0])
            yield ChangingStep(step, *change)


def _changed(features: FeatureStage, change: _Change) -> FeatureStage:
    plan = features.job.plan
    steps = tuple(
        TransformSpec(name=name, options=options) for each in change for name, options in each.items()
    )
    update = {"preprocess": (*steps, *plan.preprocess), "cache": None}
    changed_plan = plan.model_copy(update=update)
    return type(features)(features.job.model_copy(update={"plan": changed_plan}))


def _hue(step: Step) -> tuple[str, str, _Change] | None:
    built: Any = step.spec.build(step.path)
    limits = built.hue_shift_limit if step.spec.name == "HueSaturationValue" else [180 * x for x in built.hue]
    shift = float(max(limits, key=abs))
    if abs(shift) < _MIN_HUE:
        return None
    options = {
        "hue_shift_limit": [shift, shift],
        "sat_shift_limit": [0, 0],
        "val_shift_limit": [0, 0],
        "p": 1.0,
    }
    return "hue", f"with the hue shifted by {2 * shift:.0f} degrees", [{"HueSaturationValue": options}]


def _turned(_: Step) -> tuple[str, str, _Change]:
    return "half_turn", "turned upside down", [_FLIP, _FLOP]


_CHANGES: Mapping[str, Callable[[Step], tuple[str, str, _Change] | None]] = {
    "HorizontalFlip": lambda _: ("horizontal_flip", "mirrored left to right", [_FLIP]),
    "VerticalFlip": lambda _: ("vertical_flip", "mirrored top to bottom", [_FLOP]),
    "RandomRotate90": _turned,
    "D4": _turned,
    "SquareSymmetry": _turned,
    "ToGray": lambda _: ("gray", "in gray", [{"ToGray": {"p": 1.0}}]),
    "HueSaturationValue": _hue,
    "ColorJitter": _hue,
}
"""Name, phrase and transforms by the step that has them among its results."""
