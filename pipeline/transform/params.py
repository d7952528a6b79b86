"""Let Albumentations draw a sample's decisions before there are pixels.

Albumentations draws and applies a transform in one call. Here its leaves are copied and their second half,
``apply_with_params``, is replaced by a recorder; a picture without pixels (a zero-stride array of the right
size) goes through the unchanged compositions. So OneOf, SomeOf, RandomOrder and whatever nests them consume from
the generators exactly what Albumentations itself would have consumed, and what runs after the drawn beginning
draws the same as it would without us.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..geometry import Size
from ..policy.registry import is_composition
from ..rng import ReseedableGenerator, numpy_generator, python_random
from .output_shapes import output_size

_ONE_PIXEL = np.zeros(1, np.uint8)
DETERMINISTIC = frozenset({"CenterCrop", "Crop", "LongestMaxSize", "Resize", "SmallestMaxSize"})
"""Transforms that take nothing from the generators: leaving them out changes no decision behind them."""


@dataclass(frozen=True, slots=True)
class TransformCall:
    """One transform that a sample goes through, with what was drawn for it."""

    transform_index: int
    """Number of the transform among the policy's leaves, in the order in which they are written."""
    params: Mapping[str, Any]
    """What its ``apply`` methods take."""
    size: Size
    """Height and width of the picture that it is given."""


@dataclass(frozen=True, slots=True)
class SampledParams:
    """What was drawn for one sample."""

    calls: tuple[TransformCall, ...]
    size: Size
    """Height and width after the last decision."""
    targets: dict[str, Any]
    """Mask, boxes and keypoints after the last decision, in Albumentations' inner form."""
    generators: tuple[np.random.Generator, random.Random]
    """Where drawing stands: what is not drawn ahead goes on from here. Where all is, the next sample has them."""


def leaf_transforms(transforms: Sequence[Any]) -> Iterator[Any]:
    """Yield the transforms inside compositions, in the order in which they are written."""
    for transform in transforms:
        if is_composition(transform):
            yield from leaf_transforms(transform.transforms)
        else:
            yield transform


class ParamSampler:
    """Runs a policy on everything but the pixels of the image, as far as that goes, and the rest on pixels.

    One thread at a time: it holds the drawing state.

    Args:
        compose: the policy as Albumentations runs it; copied.
        num_sampled: how many of its outermost transforms are drawn ahead, from the first.
    """

    def __init__(self, compose: Any, num_sampled: int) -> None:
        self._compose = copy.deepcopy(compose)
        self._presampled = self._compose.transforms[:num_sampled]
        self._remaining = self._compose.transforms[num_sampled:]
        self._leaves = list(leaf_transforms(self._presampled))
        self._calls: list[TransformCall] = []
        for transform_index, leaf in enumerate(self._leaves):
            leaf.apply_with_params = self._recorder(transform_index, leaf)
        # Where nothing is drawn later, nobody needs a sample's generators once it is drawn: the next may have them.
        self._reseedable = None if self._remaining else ReseedableGenerator()
        if self._reseedable is not None:
            self._compose.set_random_state(*self._reseedable.generators)

    def transform_at(self, transform_index: int) -> Any:
        """Find the transform of a slot."""
        return self._leaves[transform_index]

    def is_deterministic(self, num_transforms: int) -> bool:
        """Say whether so many of the outermost transforms, from the first, leave the generators as they are."""
        first = self._presampled[:num_transforms]
        return all(type(one).__name__ in DETERMINISTIC and one.p >= 1 for one in first)

    def sample(self, seed: int, size: Size, *, num_skipped: int = 0, **targets: Any) -> SampledParams:
        """Draw for one sample.

        Args:
            seed: of the sample; see ``rng.derive_seed``.
            size: height and width of the decoded picture, or of what it is after ``num_skipped`` transforms.
            num_skipped: outermost transforms, from the first, that are left out; such as draw nothing.
            targets: ``mask``, ``bboxes``, ``keypoints`` and their label fields; they go through what is drawn.
        """
        generators = self._reseed(seed)
        self._calls = []
        data: dict[str, Any] = {"image": placeholder_image(size), **targets}
        # The lines of Compose.__call__; its own draw is one of the decisions that must not be left out.
        if generators[1].random() < self._compose.p:
            self._compose.preprocess(data)
            data = self._run_transforms(
                self._presampled[num_skipped:] if num_skipped else self._presampled, data
            )
        height, width = data.pop("image").shape[:2]
        return SampledParams(tuple(self._calls), (height, width), data, generators)

    def _reseed(self, seed: int) -> tuple[np.random.Generator, random.Random]:
        if self._reseedable is not None:
            return self._reseedable.reseed(seed)
        generators = numpy_generator(seed), python_random(seed)
        self._compose.set_random_state(*generators)
        return generators

    def apply(self, image: np.ndarray, calls: Sequence[TransformCall]) -> np.ndarray:
        """Do to pixels what was drawn."""
        for call in calls:
            image = self._leaves[call.transform_index].apply(np.ascontiguousarray(image), **call.params)
        return image

    def is_finished(self, sampled: SampledParams) -> bool:
        """Say whether pixels that went through the decisions need ``finish`` no more."""
        return not self._remaining and not sampled.targets

    def finish(self, image: Any, sampled: SampledParams) -> dict[str, Any]:
        """Run what could not be drawn ahead; returns Albumentations' result, ``image`` and the targets."""
        if self.is_finished(sampled):
            return {"image": image}
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
            )  # first: it says best what is wrong
            others = apply_with_params(leaf, params, **data) if data else {}
            return {"image": image, **others}

        return record


def placeholder_image(size: Size) -> np.ndarray:
    """Make an RGB picture of a size that takes one byte."""
    return np.ndarray((*size, 3), np.uint8, _ONE_PIXEL, 0, (0, 0, 0))
