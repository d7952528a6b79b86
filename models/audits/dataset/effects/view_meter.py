"""Measures of one image in one view of a plan: share that crops keep, enlargement, clipped pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from .....pipeline.batch.annotations import albumentations_targets, read_annotations
from .....pipeline.rng import derive_seed, numpy_generator, python_random
from .....pipeline.text import one_line
from .....pipeline.transform.params import ParamSampler, Trace, leaf_transforms
from .objects import objects_of
from .pixel_effects import pixel_effects
from .traced_points import SIDE, enlargement, lattice, trace_points

if TYPE_CHECKING:
    from .....pipeline.batch.annotations import AnnotationKinds, Annotations
    from .....pipeline.compiler.program import Program
    from .....pipeline.load.samples import ImageSample

NUM_VIEWS = 4
"""Training epochs whose views are measured."""
EVALUATION = -1
"""Number of the evaluation's view."""
EFFECT_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "view": pa.int8(),  # the epoch of the training view, or -1 for evaluation
        "problem": pa.string(),  # why the plan fails on the image; then all that follows is null
        "height": pa.int32(),  # of the output
        "width": pa.int32(),
        "short_side": pa.int32(),  # of the original
        "enlargement": pa.float32(),  # pixels of the output per pixel of the original, along one side
        "kept": pa.float32(),  # share of the image
        "cropped_by": pa.int16(),  # number of the transform that loses the most of the objects, or of the image without any
        "clipped": pa.float32(),  # share of pixels that color steps make 0 or 255
        "clipped_by": pa.int16(),  # number of the transform that clips the most
        "brightness": pa.float32(),  # mean luma of the output
        "brightness_change": pa.float32(),  # by color steps
        "objects": pa.list_(
            pa.struct(
                {"number": pa.int32(), "is_mask": pa.bool_(), "kept": pa.float32(), "side": pa.float32()}
            )
        ),  # class of a box or label of a mask; share that is kept; root of its area in the original
    }
)
"""A row for each image and view. Numbers of transforms count the leaves of the view's policy as it is written."""


class ViewMeter:
    """Measures the effects of a view of a plan on images. One thread at a time: it holds random state.

    Args:
        program: of the plan, without a cache and of one size.
        kinds: annotations of the index.
        augment: the training view; else the evaluation's.
    """

    def __init__(self, program: Program, kinds: AnnotationKinds, *, augment: bool) -> None:
        self._plan = program.plan
        self._kinds = kinds
        self._compose = program.compose(augment=augment, boxes=kinds.boxes, keypoints=kinds.num_keypoints > 0)
        self._leaves = list(leaf_transforms(self._compose.transforms))
        self._trace = Trace()
        num_sampled = program.routes(augment=augment, backend="opencv").num_sampled
        self._sampler = ParamSampler(self._compose, num_sampled, self._trace)

    def measure(self, sample: ImageSample, view: int) -> dict[str, Any]:
        """Return the row of an image in a training epoch, or in evaluation."""
        row: dict[str, Any] = dict.fromkeys(EFFECT_SCHEMA.names)
        row |= {"key": sample.key, "view": view}
        try:
            return row | self._measures(sample, max(view, 0))
        except Exception as error:  # transforms may raise anything
            return row | {"problem": one_line(f"{type(error).__name__}: {error}")[:300]}

    def _measures(self, sample: ImageSample, epoch: int) -> dict[str, Any]:
        image = sample.image
        height, width = image.shape[:2]
        annotations = read_annotations(sample.row, sample.mask, (height, width), self._kinds)
        self._sample_calls(sample, annotations, epoch)
        calls = self._trace.done
        pixels = pixel_effects(self._leaves, calls, image)
        objects = objects_of(annotations, (height, width))
        parts = [lattice(width, height), *(one.points for one in objects)]
        traced = trace_points(self._leaves, calls, np.concatenate(parts), pixels.size)
        ends = np.cumsum([len(part) for part in parts]).tolist()
        whole, *others = (traced.part(end - len(part), end) for part, end in zip(parts, ends, strict=True))
        lost_by = traced.lost_by[ends[0] :] if objects else traced.lost_by
        lost = lost_by[lost_by >= 0]
        return {
            "height": pixels.size[0],
            "width": pixels.size[1],
            "short_side": min(height, width),
            "enlargement": enlargement(whole, (width / SIDE, height / SIDE)),
            "kept": float(whole.is_kept.mean()),
            "cropped_by": calls[int(np.bincount(lost).argmax())].transform_index if len(lost) else None,
            "clipped": pixels.clipped,
            "clipped_by": calls[pixels.clipped_by].transform_index if pixels.clipped_by >= 0 else None,
            "brightness": pixels.brightness,
            "brightness_change": pixels.brightness_change,
            "objects": [
                {
                    "number": one.number,
                    "is_mask": one.is_mask,
                    "kept": float(points.is_kept.mean()),
                    "side": one.side,
                }
                for one, points in zip(objects, others, strict=True)
            ],
        }

    def _sample_calls(self, sample: ImageSample, annotations: Annotations, epoch: int) -> None:
        """Record the steps of a sample, with the parameters that training draws for it in this epoch."""
        size = sample.image.shape[0], sample.image.shape[1]
        plan = self._plan
        targets = albumentations_targets(
            annotations, size, self._kinds, plan.bbox_params, plan.keypoint_params
        )
        seed = derive_seed("augment", plan.seed, epoch, sample.key)
        sampled = self._sampler.sample(seed, size, **targets)
        if not self._sampler.is_finished(sampled):
            self._sampler.finish(self._sampler.apply(sample.image, sampled.calls), sampled)
        self._compose.set_random_state(numpy_generator(seed), python_random(seed))
