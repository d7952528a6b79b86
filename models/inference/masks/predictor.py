"""Class masks in Python: a segmentation checkpoint with its preprocessing, called with files or arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ....pipeline.compiler.program import Program
from ....pipeline.errors import PlanError
from ....pipeline.plan.plan import Plan
from ..reading import Image, ImageReader, as_list
from .geometry import MaskGeometry
from .segmenter import Segmenter, class_masks
from .table import count_classes, shares_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Masks:
    """Class masks of several images, in the order in which they were given."""

    classes: tuple[str, ...]
    masks: tuple[np.ndarray | None, ...]
    """uint8 of each image's height and width: numbers in ``classes``, 255 where the network did not see the image. Of the
    network's size where the plan's transforms cannot be undone; None for images that could not be used."""
    errors: tuple[str, ...]
    """For each image why it could not be used; empty if it could."""

    @property
    def shares(self) -> np.ndarray:
        """float32, shape (N, classes): share of each class in the pixels that have one; NaN for images that could not be used."""
        rows = np.full((len(self.masks), len(self.classes)), np.nan, np.float32)
        for row, mask in enumerate(self.masks):
            if mask is not None:
                rows[row] = shares_of(count_classes(mask, len(self.classes))[None])[0]
        return rows

    def __len__(self) -> int:
        return len(self.errors)


class MaskPredictor:
    """A segmentation network with the preprocessing of its training. One thread at a time; the network is never changed."""

    def __init__(self, program: Program, segmenter: Segmenter, num_threads: int) -> None:
        self.program = program
        self.segmenter = segmenter
        self._reader = ImageReader(program, num_threads)
        self._geometry = MaskGeometry(program)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by the numbers in the masks."""
        return self.segmenter.classes

    @property
    def plan(self) -> Plan:
        """Preprocessing as a plan, without an index."""
        return self.program.plan

    @property
    def model(self) -> torch.nn.Module:
        """The network, in eval mode."""
        return self.segmenter.model

    def __call__(self, images: Image | Sequence[Image]) -> Masks:
        """Predict files or arrays; see ``Predictor``.

        Raises:
            PlanError: an array is no uint8 RGB image, whose meaning would be a guess.
            ModelError: the network does not accept the size of the transformed images.
        """
        given = as_list(images)
        masks: list[np.ndarray | None] = [None] * len(given)
        errors = [""] * len(given)
        for places, names, sizes, tensor in self._reader.read(given, errors):
            found = class_masks(self.segmenter(tensor, names))
            for own, size, mask in zip(places, sizes, found, strict=True):
                for number in own:
                    masks[number] = self._geometry.to_picture(mask, size)
        return Masks(self.classes, tuple(masks), tuple(errors))

    def probabilities(self, picture: np.ndarray) -> np.ndarray:
        """Return the probability of each class in the network's image of a picture: float32, shape (classes, h, w).

        Args:
            picture: uint8 RGB pixels of shape (H, W, 3).

        Raises:
            PlanError: it is no uint8 RGB image, or a transform of the plan rejects it.
            ModelError: the network does not accept the size of the transformed image.
        """
        errors = [""]
        for _, names, _, tensor in self._reader.read([picture], errors):
            return np.asarray(self.segmenter(tensor, names).softmax(dim=1)[0].cpu())
        raise PlanError(
            f"picture: expected one that the plan's transforms accept, got one of {picture.shape} ({errors[0]})"
        )
