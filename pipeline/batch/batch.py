"""What a feed yields: the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from ..errors import RunError

if TYPE_CHECKING:
    import torch

KEYPOINT_COLUMNS = 3
_OF_THE_BATCH = frozenset({"epoch", "step", "num_skipped"})
"""Fields that are no rows."""


@dataclass(frozen=True, slots=True, repr=False)
class Batch:
    """Finished images with everything that is known of them. Owned by the consumer.

    Masks, boxes and keypoints belong to the upright picture, after EXIF orientation, and have gone through the same
    geometry as its pixels, mixing included. Whether a batch has a field of annotations depends on the index alone: an
    image without one has a stated empty value, and ``has_mask``, ``has_boxes`` and ``has_keypoints`` say so.

    ``images, labels = batch`` unpacks the two tensors; ``len(batch)`` is the number of images.
    """

    images: torch.Tensor
    """uint8 NHWC, or float32 NCHW when the plan normalises."""
    labels: torch.Tensor
    """int64, shape (N,); -1 where the index has no label."""
    keys: tuple[str, ...]
    """The key of the image that is shown; where a bad image was replaced, the replacement's."""
    epoch: int
    step: int
    """Number of the batch within its epoch, from 0."""
    replaced: np.ndarray
    """bool, shape (N,): True where a bad image was replaced. Metrics and audits leave these rows out."""
    padding: np.ndarray
    """bool, shape (N,): True for repeats that only make the ranks of a last batch even. They count as nothing: no
    metric, record, loss or count takes them in."""
    masks: torch.Tensor | None = None
    """uint8, shape (N, H, W): label numbers, where the index has masks; 255 (``IGNORED``) where nothing is annotated."""
    has_mask: np.ndarray | None = None
    """bool, shape (N,), beside ``masks``: False where an image has no mask and its row holds 255 only."""
    boxes: tuple[np.ndarray, ...] | None = None
    """Per image float32 (n, 4) as x0, y0, x1, y1 in pixels of the finished image, where the index has boxes."""
    has_boxes: np.ndarray | None = None
    """bool, shape (N,), beside ``boxes``: False where an image is not annotated, so that having no boxes says nothing."""
    box_labels: tuple[np.ndarray, ...] | None = None
    """Per image int64 (n,), beside ``boxes``: numbers in ``Index.box_classes``, -1 unknown; where the index has them."""
    keypoints: tuple[np.ndarray, ...] | None = None
    """Per image float32 (n, K, 3) as x, y in pixels of the finished image and visibility, where the index has keypoints.

    Visibility is COCO's: 0 not labelled or no longer in the image, 1 occluded, 2 visible. Instances are the boxes, in
    their order; an image without boxes has a single instance.
    """
    has_keypoints: np.ndarray | None = None
    """bool, shape (N,), beside ``keypoints``: False where an image is not annotated."""
    mixed_labels: torch.Tensor | None = None
    """int64, shape (N,): labels of the images mixed in by MixUp or CutMix."""
    mixed_weights: torch.Tensor | None = None
    """float32, shape (N,), 0..1: the partner's share of the target."""
    num_skipped: int = 0
    """Images that could not be used and are not here, where the plan says ``on_error: skip``."""

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield images and labels, for unpacking."""
        yield self.images
        yield self.labels

    def __repr__(self) -> str:
        shapes = ", ".join(
            f"{field.name}={_in_short(value)}"
            for field in fields(self)
            if _is_tensor(value := getattr(self, field.name))
        )
        repeats = int(np.count_nonzero(self.replaced)), int(np.count_nonzero(self.padding))
        return f"Batch(epoch={self.epoch}, step={self.step}, {shapes}, replaced={repeats[0]}, padding={repeats[1]})"

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> Batch:
        """Copy the tensors to a device, as ``torch.Tensor.to`` does; arrays and keys stay on the host.

        Args:
            device: where the tensors shall be; those that are there already are not copied.
            non_blocking: return before the copy has ended where the tensors are pinned.
        """
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Copy the tensors to page-locked memory, from which copies to a GPU need not block."""
        return self._with_tensors(lambda tensor: tensor.pin_memory())

    def _with_tensors(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: change(one) for name, one in values.items() if _is_tensor(one)}
        return replace(self, **changed)

    @property
    def num_images(self) -> int:
        """Images of the batch, without padding."""
        return len(self.keys) - int(np.count_nonzero(self.padding))

    @property
    def is_valid(self) -> np.ndarray:
        """bool, shape (N,): rows that show the image they stand for, neither replaced nor padding."""
        return np.asarray(~(self.replaced | self.padding))

    def slice_rows(self, first: int, last: int) -> Batch:
        """Take some of the rows, without copying pixels."""
        per_row = {
            field.name: value[first:last]
            for field in fields(self)
            if field.name not in _OF_THE_BATCH and (value := getattr(self, field.name)) is not None
        }
        return replace(self, **per_row)

    def without_padding(self) -> Batch:
        """Leave the padding out; it stands at the end, and may be all there is."""
        return self.slice_rows(0, self.num_images)

    def targets(self, *, first_label: int = 1) -> list[dict[str, torch.Tensor]]:
        """Return boxes and keypoints in the form that torchvision's detection models are trained with.

        An image that is not annotated has no boxes here, which a model learns as background; leave such images out by
        ``has_boxes``. Boxes of unknown class are left out. Masks are one for each image and not one for each box, so they
        are not part of the targets.

        Args:
            first_label: the number of the first class of ``Index.box_classes``; torchvision keeps 0 for the background.

        Returns:
            For each image ``boxes`` float32 (n, 4), ``labels`` int64 (n,), all ``first_label`` where the index has no box
            classes, and where the index has keypoints ``keypoints`` float32 (n, K, 3). All lie on the CPU.

        Raises:
            RunError: the index has no boxes.
        """
        import torch

        if self.boxes is None:
            raise RunError("expected boxes in the index, got none; index a source with boxes")
        found = []
        for row, boxes in enumerate(self.boxes):
            labels = np.zeros(len(boxes), np.int64) if self.box_labels is None else self.box_labels[row]
            known = labels >= 0
            target = {
                "boxes": torch.from_numpy(boxes[known]),
                "labels": torch.from_numpy(labels[known] + first_label),
            }
            if self.keypoints is not None:
                of_boxes = self.has_boxes is None or self.has_boxes[row]  # else an instance without a box
                target["keypoints"] = torch.from_numpy(self.keypoints[row][known if of_boxes else slice(0)])
            found.append(target)
        return found


def _is_tensor(value: object) -> TypeGuard[torch.Tensor]:
    import torch

    return isinstance(value, torch.Tensor)


def _in_short(tensor: torch.Tensor) -> str:
    kind = str(tensor.dtype).removeprefix("torch.")
    where = "" if tensor.device.type == "cpu" else f" on {tensor.device}"
    return f"{kind}{list(tensor.shape)}{where}"
