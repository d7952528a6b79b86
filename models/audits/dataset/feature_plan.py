"""The plan by which a network sees the images of a dataset, and the stage that computes its features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....pipeline.plan.plan import Plan
from ...features.embed import STAGE, Embed, FeatureStage

if TYPE_CHECKING:
    from ...zoo.build import ModelSpec
    from .job import DatasetAudit

FEATURES = STAGE


def feature_stages(audit: DatasetAudit) -> tuple[FeatureStage, ...]:
    """Return the stage of the features; none without a network."""
    if audit.model is None:
        return ()
    embed = Embed(plan=feature_plan(audit.plan, audit.model), model=audit.model, split=audit.split)
    return (FeatureStage(embed),)


def feature_plan(plan: Plan, model: ModelSpec) -> Plan:
    """Return a plan of the same index with the preprocessing of the network's weights, unless the plan has one of its own.

    Raises:
        ModelError: no such network, or no preprocessing is known for it.
    """
    from ...zoo.data_config import data_config
    from ...zoo.preprocessing import expected_policy

    if plan.preprocess or plan.evaluate:
        return plan
    expected = expected_policy(data_config(model))
    policy = {name: expected[name] for name in ("preprocess", "evaluate")}
    return Plan.model_validate({"index": plan.index, "errors": plan.errors, "seed": plan.seed, **policy})
