"""Validation errors of models built in Python are a one-line PlanError, as for job files."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Iterator
from inspect import isabstract
from pathlib import Path

import lightwell
import pytest
from lightwell.pipeline.config.checked_model import CheckedModel
from lightwell.pipeline.errors import PlanError
from pydantic import BaseModel

PACKAGE = Path(lightwell.__file__).parent
MODULES = [
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for folder in ("pipeline", "models")
    for path in sorted((PACKAGE / folder).rglob("*.py"))
    if any(word in path.read_text() for word in ("pydantic", "CheckedModel", "Spec)", "Config)", "Job)"))
]
INTERNAL = {"CheckedModel", "Manifest"}
"""The mechanism itself, and a file that only output folders read and write."""


def below(cls: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from below(sub)


def models() -> dict[str, type[BaseModel]]:
    """All pydantic models of the package by name."""
    for module in MODULES:
        importlib.import_module(f"lightwell.{module}")
    return {cls.__name__: cls for cls in below(BaseModel) if cls.__module__.startswith("lightwell.")}


def test_every_model_is_a_checked_model() -> None:
    found = models()
    assert {"Plan", "Mix", "ModelSpec", "Classify", "OptimizerSpec", "GradCamAudit"} <= set(found)
    unchecked = {name for name, cls in found.items() if not issubclass(cls, CheckedModel)}
    assert unchecked == INTERNAL - {"CheckedModel"}


@pytest.mark.parametrize(
    "name", sorted(name for name, cls in models().items() if name not in INTERNAL and not isabstract(cls))
)
def test_an_unknown_key_raises_a_plan_error_that_can_be_pickled(name: str) -> None:
    with pytest.raises(PlanError, match=rf"^{name}: .*no_such_key: no such key") as caught:
        models()[name](no_such_key=1)
    with pytest.raises(PlanError, match=rf"^{name}: .*no_such_key: no such key"):
        models()[name].model_validate({"no_such_key": 1})
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_nested_value_is_named_by_its_dotted_key() -> None:
    from lightwell.models.training.optim import OptimizerSpec

    with pytest.raises(
        PlanError, match=r"GradCamAudit: .*model\.num_classes: expected greater than or equal to 1, got 0"
    ):
        lightwell.GradCamAudit(plan=lightwell.Plan(index="i"), model={"name": "resnet18", "num_classes": 0})
    with pytest.raises(PlanError, match="OptimizerSpec: lr: expected a finite number, got nan"):
        OptimizerSpec(lr=float("nan"))
