"""Program: a compiled plan."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import PlanError
from ..geometry import Size
from ..plan.plan import Normalization, Plan
from ..plan.progressive_size import size_at
from ..policy.registry import load_albumentations
from ..policy.spec import TransformSpec
from ..transform.keypoints import KEYPOINT_FIELDS, mark_keypoints_outside
from ..warning_filter import ignored_warnings
from .cache_placement import count_cacheable, reducible_past_cache
from .pixel_format import output_pixel_format
from .routing import Backend, Routes, find_routes
from .training_size import plan_with_size

if TYPE_CHECKING:
    import albumentations

LAYOUT_TRANSFORMS = {"ToTensorV2", "ToTensor3D"}
"""Dropped from the end of a policy, as batches are tensors anyway."""
NUM_DETERMINISM_SEEDS = 8


@dataclass(frozen=True)
class Program:
    """A compiled plan: transforms per sample, and normalization per batch."""

    plan: Plan
    preprocess: tuple[TransformSpec, ...]
    augment: tuple[TransformSpec, ...]
    evaluate: tuple[TransformSpec, ...]
    normalization: Normalization | None

    @classmethod
    def compile(cls, plan: Plan) -> Program:
        """Check the policies and move normalization to the batch.

        Raises:
            PlanError: an unknown transform or option, a random transform where only deterministic ones are allowed, two
                normalizations, or a layout transform in the middle.
        """
        preprocess, shared = _split_tail(plan.preprocess, "preprocess")
        augment, augmented = _split_tail(plan.augment, "augment")
        evaluate, evaluated = _split_tail(plan.evaluate, "evaluate")
        _check_one_normalization(shared, augmented, evaluated)
        for i, spec in enumerate(preprocess):
            _check_deterministic(spec, f"preprocess[{i}]")
        for i, spec in enumerate(evaluate):
            _check_deterministic(spec, f"evaluate[{i}]")
        for i, spec in enumerate(augment):
            spec.build(f"augment[{i}]")
        program = cls(plan, preprocess, augment, evaluate, shared or augmented or evaluated)
        program._check_pixel_formats()
        if plan.cache is not None:
            program.check_cache()
        for step in plan.progressive_size or ():
            program.at_epoch(step.until_epoch - 1)
        return program

    @cached_property
    def sized(self) -> Mapping[Size, Program]:
        """Programs of training images of other sizes, by size; PlanError if the plan's size cannot be changed."""
        steps = self.plan.progressive_size or ()
        return {step.size: Program.compile(plan_with_size(self.plan, step.size)) for step in steps}

    def at_epoch(self, epoch: int) -> Program:
        """Return the program of the training images of an epoch."""
        size = size_at(self.plan.progressive_size, epoch)
        return self if size is None else self.sized[size]

    def _check_pixel_formats(self) -> None:
        """Check that all images of a view have one pixel format, to which the normalization applies.

        Raises:
            PlanError: the format is random, or the normalization has constants for another number of channels.
        """
        for augment, name in ((True, "augment"), (False, "evaluate")):
            policy = name if getattr(self, name) else "preprocess"
            kind = output_pixel_format(self._build_transforms(augment=augment), policy)
            if kind is None or self.normalization is None:
                continue
            num_constants = len(self.normalization.mean)
            if num_constants not in (1, kind.channels):
                raise PlanError(
                    f"Normalize: expected a mean and std for {kind.channels} channels, as {policy} yields, got "
                    f"{num_constants}; write one for each channel, or one for all"
                )

    @cached_property
    def num_cached(self) -> int:
        """Number of leading transforms of ``preprocess`` before the cache."""
        return count_cacheable([spec.build(f"preprocess[{i}]") for i, spec in enumerate(self.preprocess)])

    def check_cache(self) -> None:
        """Check that batches with a cache are the same as without one.

        Raises:
            PlanError: the plan runs on a GPU, or a JPEG could be reduced for a resize after the cache.
        """
        if self.plan.device == "gpu":
            raise PlanError(
                "cache: expected device: cpu, got gpu; remove cache, which is supported on the CPU only"
            )
        for augment in (True, False):
            built = self._build_transforms(augment=augment)
            resize = reducible_past_cache(built[: self.num_cached], built[self.num_cached :])
            if resize and self.plan.decode == "auto":
                raise PlanError(
                    f"cache: expected a resize in preprocess or decode: exact, got {resize} after the cache and decode: "
                    "auto, which would reduce only JPEGs that are not cached; write one or the other"
                )

    def routes(self, *, augment: bool, backend: Backend | None = None) -> Routes:
        """Decide where each transform runs; in DALI if the plan's device is a GPU or ``backend`` is ``dali``."""
        plan = self.plan
        return find_routes(
            self._build_transforms(augment=augment),
            backend=backend or ("dali" if plan.device == "gpu" else "opencv"),
            device=plan.device,
            approximate=plan.lowering == "approximate",
        )

    def specs(self, *, augment: bool) -> list[tuple[str, TransformSpec]]:
        """Return the transforms of a view in order, each with its path in the plan."""
        named = {"preprocess": self.preprocess}
        named |= {"augment": self.augment} if augment else {"evaluate": self.evaluate}
        return [(f"{name}[{i}]", spec) for name, specs in named.items() for i, spec in enumerate(specs)]

    def _build_transforms(self, *, augment: bool) -> list[Any]:
        return [spec.build(path) for path, spec in self.specs(augment=augment)]

    def compose(
        self, *, augment: bool, boxes: bool = False, keypoints: bool = False
    ) -> albumentations.Compose:
        """Build the per-sample Albumentations pipeline; one per thread, as it holds random state.

        Args:
            augment: for training views.
            boxes: samples have ``bboxes`` and ``box_rows``, the row numbers of the boxes.
            keypoints: samples have ``keypoints`` and ``KEYPOINT_FIELDS``.
        """
        package = load_albumentations()
        transforms = self._build_transforms(augment=augment)
        bbox_params = keypoint_params = None
        if boxes:
            options = self.plan.bbox_params.model_dump()
            bbox_params = package.BboxParams(format="pascal_voc", label_fields=["box_rows"], **options)
        if keypoints:
            options = self.plan.keypoint_params.model_dump()
            keypoint_params = package.KeypointParams(
                format="xy", label_fields=list(KEYPOINT_FIELDS), **options
            )
        with ignored_warnings():  # Albumentations warns about boxes without spatial transforms
            compose = package.Compose(
                transforms,
                bbox_params=bbox_params,
                keypoint_params=keypoint_params,
                is_check_shapes=False,  # masks are checked after decoding
            )
        if keypoints:
            mark_keypoints_outside(compose)
        return compose


def _split_tail(
    policy: tuple[TransformSpec, ...], where: str
) -> tuple[tuple[TransformSpec, ...], Normalization | None]:
    """Split layout transforms and a standard Normalize from the end of a policy."""
    remaining = list(policy)
    while remaining and remaining[-1].name in LAYOUT_TRANSFORMS:
        remaining.pop()
    for i, spec in enumerate(remaining):
        if spec.name in LAYOUT_TRANSFORMS:
            raise PlanError(
                f"{where}[{i}].{spec.name}: expected only at the end of a policy, got it elsewhere; remove "
                "it, as batches are tensors anyway"
            )
    if not remaining or remaining[-1].name != "Normalize":
        return tuple(remaining), None
    built: Any = remaining[-1].build(f"{where}[{len(remaining) - 1}]")
    if built.normalization != "standard" or built.p < 1:
        return tuple(remaining), None  # per-image statistics: left to Albumentations
    path = f"{where}[{len(remaining) - 1}].Normalize"
    for name in ("mean", "std"):
        if getattr(built, name) is None:
            raise PlanError(f"{path}.{name}: expected numbers, got None; write one for each channel")
    factor = (built.max_pixel_value or 0) / 255
    lengths = {np.size(built.mean), np.size(built.std)} - {1}
    if len(lengths) > 1:
        raise PlanError(f"{path}: expected as many means as stds, got {np.size(built.mean)} and {np.size(built.std)}; "
                        "write one of each for each channel")  # fmt: skip
    mean, std = np.broadcast_arrays(np.atleast_1d(built.mean) * factor, np.atleast_1d(built.std) * factor)
    if not (std > 0).all():
        raise PlanError(f"{path}: expected std and max_pixel_value above 0, got 0 or less; correct them")
    return tuple(remaining[:-1]), Normalization(mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def _check_one_normalization(
    shared: Normalization | None, augmented: Normalization | None, evaluated: Normalization | None
) -> None:
    """Check that all views have the same normalization.

    Raises:
        PlanError: a view has two, or the views differ.
    """
    if shared and (augmented or evaluated):
        raise PlanError(
            "Normalize: expected one, got one at the end of preprocess and another after it; keep the first"
        )
    if augmented and evaluated and augmented != evaluated:
        raise PlanError(
            "Normalize: expected the same for training and for evaluation, got two; write one at the end of preprocess"
        )


def _check_deterministic(spec: TransformSpec, where: str) -> None:
    """Check that a transform samples the same parameters with several seeds.

    Raises:
        PlanError: it does not, or its probability is below 1.
    """
    transform: Any = spec.build(where)
    path = f"{where}.{spec.name}"
    policy = where.partition("[")[0]
    cure = f"{policy} must be deterministic; move it to augment"
    if spec.children:
        if spec.name not in ("Compose", "Sequential"):
            raise PlanError(f"{path}: expected a deterministic transform, got a random choice; {cure}")
        for i, child in enumerate(spec.children):
            _check_deterministic(child, f"{path}.transforms[{i}]")
    if transform.p < 1:
        raise PlanError(f"{path}: expected p: 1.0, got p: {transform.p:g}; {cure}, or write p: 1.0")
    if spec.children:
        return
    try:
        samples = [_sample_params(transform, seed) for seed in range(NUM_DETERMINISM_SEEDS)]
    except Exception as error:
        raise PlanError(
            f"{path}: expected parameters that do not depend on the image, got {type(error).__name__} without one; {cure}, "
            "or remove it"
        ) from error
    if any(draw != samples[0] for draw in samples[1:]):
        raise PlanError(
            f"{path}: expected a deterministic transform, got random parameters; {cure}, or fix its ranges"
        )


def _sample_params(transform: Any, seed: int) -> str:
    """Sample a transform's parameters with a placeholder image; return them as comparable text."""
    data = {"image": np.broadcast_to(np.uint8(0), (2048, 2048, 3))}
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))  # noqa: S311
    params = transform.update_transform_params(params=transform.get_params(), data=data)
    params.update(transform.get_params_dependent_on_data(params=params, data=data))
    with np.printoptions(threshold=100_000):
        return repr(sorted(params.items(), key=lambda item: item[0]))
