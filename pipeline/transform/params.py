"""Sample Albumentations parameters before images are decoded.

Albumentations samples parameters and applies a transform in one call. Here the leaf transforms are copied and their
``apply_with_params`` is replaced by a recorder; a placeholder image (a zero-stride array of the right size) goes
through the unchanged compositions. So OneOf, SomeOf, RandomOrder and nested compositions consume exactly the random
numbers that Albumentations would, and later transforms get the same random numbers as without this module.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..geometry import Size
from ..policy.registry import is_composition
from ..rng import ReseedableGenerator, numpy_generator, python_random
from .output_shapes import output_size

_ONE_PIXEL = np.zeros(1, np.uint8)
DETERMINISTIC = frozenset({"CenterCrop", "Crop", "LongestMaxSize", "Resize", "SmallestMaxSize"})
"""Transforms that consume no random numbers: skipping them does not affect later transforms."""


@dataclass(frozen=True, slots=True)
class TransformCall:
    """One transform to be applied to a sample, with its sampled parameters."""

    transform_index: int
    """Index of the transform among the policy's leaves, in written order."""
    params: Mapping[str, Any]
    """Arguments of its ``apply`` methods."""
    size: Size
    """Height and width of its input image."""


@dataclass(frozen=True, slots=True)
class SampledParams:
    """Sampled transforms and parameters of one sample."""

    calls: tuple[TransformCall, ...]
    size: Size
    """Height and width after the last call."""
    targets: dict[str, Any]
    """Mask, boxes and keypoints after the last call, in Albumentations' internal format."""
    generators: tuple[np.random.Generator, random.Random]
    """Random state for the remaining transforms. If there are none, the generators are reused for the next sample."""


@dataclass(slots=True)
class Trace:
    """The calls that made the sample whose parameters were sampled last. One thread at a time."""

    done: list[TransformCall] = field(default_factory=list)
    """In the order of execution. Indices count all transforms of the policy, including those that run on pixels."""


def leaf_transforms(transforms: Sequence[Any]) -> Iterator[Any]:
    """Yield the leaf transforms of compositions, in written order."""
    for transform in transforms:
        if is_composition(transform):
            yield from leaf_transforms(transform.transforms)
        else:
            yield transform


class ParamSampler:
    """Samples the parameters of a policy's leading transforms without pixels, and runs the remaining ones on pixels.

    One thread at a time: it holds random state.

    Args:
        compose: the policy; copied.
        num_sampled: number of leading outermost transforms whose parameters are sampled without pixels.
        trace: records what is done to each sample.
    """

    def __init__(self, compose: Any, num_sampled: int, trace: Trace | None = None) -> None:
        self._compose = copy.deepcopy(compose)
        self._presampled = self._compose.transforms[:num_sampled]
        self._remaining = self._compose.transforms[num_sampled:]
        self._leaves = list(leaf_transforms(self._presampled))
        self._calls: list[TransformCall] = []
        for transform_index, leaf in enumerate(self._leaves):
            leaf.apply_with_params = self._recorder(transform_index, leaf)
        self._trace = trace
        if trace is not None:
            for index, leaf in enumerate(leaf_transforms(self._remaining), len(self._leaves)):
                leaf.apply_with_params = _recorded(trace, index, leaf.apply_with_params)
        # Without remaining transforms the generators are not needed after sampling and can be reused.
        self._reseedable = None if self._remaining else ReseedableGenerator()
        if self._reseedable is not None:
            self._compose.set_random_state(*self._reseedable.generators)

    def transform_at(self, transform_index: int) -> Any:
        """Return a leaf transform by its index."""
        return self._leaves[transform_index]

    def is_deterministic(self, num_transforms: int) -> bool:
        """Return whether the first ``num_transforms`` outermost transforms consume no random numbers."""
        first = self._presampled[:num_transforms]
        return all(type(one).__name__ in DETERMINISTIC and one.p >= 1 for one in first)

    def sample(self, seed: int, size: Size, *, num_skipped: int = 0, **targets: Any) -> SampledParams:
        """Sample the parameters of one sample.

        Args:
            seed: of the sample; see ``rng.derive_seed``.
            size: height and width of the decoded image, or of the image after ``num_skipped`` transforms.
            num_skipped: leading outermost transforms to skip; they must consume no random numbers.
            targets: ``mask``, ``bboxes``, ``keypoints`` and their label fields; the sampled transforms are applied to them.
        """
        generators = self._reseed(seed)
        self._calls = []
        data: dict[str, Any] = {"image": placeholder_image(size), **targets}
        # As in Compose.__call__, whose own random number must be consumed as well.
        if generators[1].random() < self._compose.p:
            self._compose.preprocess(data)
            data = self._run_transforms(self._presampled[num_skipped:], data)
        if self._trace is not None:
            self._trace.done = list(self._calls)
        height, width = data.pop("image").shape[:2]
        return SampledParams(tuple(self._calls), (height, width), data, generators)

    def _reseed(self, seed: int) -> tuple[np.random.Generator, random.Random]:
        if self._reseedable is not None:
            return self._reseedable.reseed(seed)
        generators = numpy_generator(seed), python_random(seed)
        self._compose.set_random_state(*generators)
        return generators

    def apply(self, image: np.ndarray, calls: Sequence[TransformCall]) -> np.ndarray:
        """Apply sampled transforms to pixels."""
        for call in calls:
            image = self._leaves[call.transform_index].apply(np.ascontiguousarray(image), **call.params)
        return image

    def is_finished(self, sampled: SampledParams) -> bool:
        """Return whether no transforms or targets remain after the sampled calls."""
        return not self._remaining and not sampled.targets

    def finish(self, image: Any, sampled: SampledParams) -> dict[str, Any]:
        """Run the remaining transforms; return Albumentations' result, ``image`` and the targets."""
        data: dict[str, Any] = {"image": image, **sampled.targets}
        if self._remaining:
            data["image"] = np.ascontiguousarray(image)
            self._compose.set_random_state(*sampled.generators)
            data = self._run_transforms(self._remaining, data)
        finished: dict[str, Any] = self._compose.postprocess(data)
        return finished

    def _run_transforms(self, transforms: Sequence[Any], data: dict[str, Any]) -> dict[str, Any]:
        for transform in transforms:
            data = self._compose.check_data_post_transform(transform(**data))
        return data

    def _recorder(self, transform_index: int, leaf: Any) -> Any:
        apply_with_params = type(leaf).apply_with_params

        def record(params: dict[str, Any], *_: Any, **data: Any) -> dict[str, Any]:
            height, width = data.pop("image").shape[:2]
            self._calls.append(TransformCall(transform_index, params, (height, width)))
            image = placeholder_image(
                output_size(leaf, params, (height, width))
            )  # first, for its error message
            others = apply_with_params(leaf, params, **data) if data else {}
            return {"image": image, **others}

        return record


def _recorded(
    trace: Trace, index: int, apply: Callable[..., dict[str, Any]]
) -> Callable[..., dict[str, Any]]:
    """Wrap a transform that runs on pixels so that its calls are recorded."""

    def applied(params: dict[str, Any], *args: Any, **data: Any) -> dict[str, Any]:
        height, width = data["image"].shape[:2]
        trace.done.append(TransformCall(index, dict(params), (height, width)))
        return apply(params, *args, **data)

    return applied


def placeholder_image(size: Size) -> np.ndarray:
    """Return an RGB image of any size that takes one byte of memory."""
    return np.ndarray((*size, 3), np.uint8, _ONE_PIXEL, 0, (0, 0, 0))
