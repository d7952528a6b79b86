"""Recipe of cached features: the frozen trunk, and the transforms of one view of a plan."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...pipeline.cache.recipe import Form, Recipe, package_versions
from ...pipeline.compiler.program import Program
from ...pipeline.errors import PlanError
from ...pipeline.transform.params import leaf_transforms

if TYPE_CHECKING:
    from ...pipeline.plan.plan import Plan

FEATURE_VERSION = 1
"""Increased whenever equal recipes give other features."""


@dataclass(frozen=True, slots=True)
class FeatureRecipe(Recipe):
    """How cached features are produced: the transforms of a view, then a network's trunk."""

    network: dict[str, Any] = field(default_factory=dict)
    """Name, digest and device of the trunk, which also hold its precision."""
    view: dict[str, Any] = field(default_factory=dict)
    """What else determines the images: seed and number of an augmented pass, and how they are decoded."""

    @property
    def form(self) -> Form:
        """Features."""
        return "features"

    def dump(self) -> dict[str, Any]:
        """Return the content of the fingerprint and of ``recipe.json``."""
        return {**Recipe.dump(self), "network": self.network, "view": self.view, "features": FEATURE_VERSION}


def feature_recipe(plan: Plan, network: dict[str, Any], augmented_pass: int | None) -> FeatureRecipe:
    """Return the recipe of the features of a plan's images.

    Args:
        plan: the plan.
        network: name, digest and device of the trunk.
        augmented_pass: number of a pass of the training view; None for images as in evaluation.

    Raises:
        PlanError: a transform depends on annotations, which are not a part of the key.
    """
    content = json.loads(json.dumps(plan.dump(), default=str))
    check_image_transforms(plan, augment=augmented_pass is not None)
    last = content["evaluate" if augmented_pass is None else "augment"]
    view: dict[str, Any] = {"lowering": plan.lowering, "device": plan.device}
    if plan.cache is not None and (pixels := plan.cache.fingerprint_fields()):
        view["cache"] = pixels
    if augmented_pass is not None and plan.augment:
        view |= {"seed": plan.seed, "pass": augmented_pass}
    return FeatureRecipe(
        steps=(*content["preprocess"], *last),
        decode=plan.decode,
        quality=None,
        versions=package_versions("torch", "torchvision", "timm"),
        network=network,
        view=view,
    )


def check_image_transforms(plan: Plan, *, augment: bool) -> None:
    """Check that no transform depends on masks, boxes or keypoints, which may change while the file stays the same.

    Raises:
        PlanError: one does.
    """
    for where, spec in Program.compile(plan).specs(augment=augment):
        for leaf in leaf_transforms([spec.build(where)]):
            needed = sorted(set(leaf.targets_as_params) - {"image"})
            if needed:
                raise PlanError(
                    f"feature_passes: expected transforms of the image alone, got {spec.name}, which depends on "
                    f"{' and '.join(needed)}; leave feature_passes out, or replace the transform"
                )
