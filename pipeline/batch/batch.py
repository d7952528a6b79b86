"""The batch yielded by a feed."""

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
"""Fields without one row per image."""


@dataclass(frozen=True, slots=True, repr=False)
class Batch:
    """Transformed images with labels, keys and annotations. Owned by the consumer.

    Masks, boxes and keypoints refer to the upright image, after EXIF orientation, and have gone through the same
    geometric transforms as its pixels, mixing included. Which annotation fields a batch has depends on the index alone:
    an image without an annotation has an empty value, and False in ``has_mask``, ``has_boxes`` or ``has_keypoints``.

    ``images, labels = batch`` unpacks the two tensors; ``len(batch)`` is the number of images.
    """

    images: torch.Tensor
    """uint8 NHWC, or float32 NCHW when the plan normalises."""
    labels: torch.Tensor
    """int64, shape (N,); -1 where the index has no label, or sets of labels."""
    keys: tuple[str, ...]
    """Key of each image; of a replaced image the key of its replacement."""
    epoch: int
    step: int
    """Number of the batch within its epoch, from 0."""
    replaced: np.ndarray
    """bool, shape (N,): True where a bad image was replaced. Metrics and audits exclude these rows."""
    padding: np.ndarray
    """bool, shape (N,): True for repeated images that pad the last batch to equal sizes on all ranks. Excluded from all
    metrics, records, losses and counts."""
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
    label_sets: torch.Tensor | None = None
    """int8, shape (N, classes), where images of the index have several labels: 1 for a label, 0 for none, -1 in the whole
    row of an unlabelled image."""
    mixed_label_sets: torch.Tensor | None = None
    """int8, shape (N, classes), beside ``label_sets``: those of the images mixed in."""
    num_skipped: int = 0
    """Unusable images left out of the batch, with ``on_error: skip``."""

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
            device: target device; tensors already on it are not copied.
            non_blocking: copy asynchronously where the tensors are pinned.
        """
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Copy the tensors to page-locked memory, for asynchronous copies to a GPU."""
        return self._with_tensors(lambda tensor: tensor.pin_memory())

    def _with_tensors(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: change(one) for name, one in values.items() if _is_tensor(one)}
        return replace(self, **changed)

    @property
    def num_images(self) -> int:
        """Number of images without padding."""
        return len(self.keys) - int(np.count_nonzero(self.padding))

    @property
    def is_valid(self) -> np.ndarray:
        """bool, shape (N,): True for rows that are neither replaced nor padding."""
        return np.asarray(~(self.replaced | self.padding))

    def slice_rows(self, first: int, last: int) -> Batch:
        """Return rows ``first`` to ``last`` (exclusive) as a view of the pixels."""
        per_row = {
            field.name: value[first:last]
            for field in fields(self)
            if field.name not in _OF_THE_BATCH and (value := getattr(self, field.name)) is not None
        }
        return replace(self, **per_row)

    def without_padding(self) -> Batch:
        """Return the batch without its padding, which is always at the end; may be empty."""
        return self.slice_rows(0, self.num_images)

    def targets(self, *, first_label: int = 1) -> list[dict[str, torch.Tensor]]:
        """Return boxes and keypoints in the target format of torchvision's detection models.

        An image without annotations has no boxes here, which a model learns as background; exclude such images with
        ``has_boxes``. Boxes of unknown class are left out. Masks are not included, as there is one per image, not one
        per box.

        Args:
            first_label: label of the first class of ``Index.box_classes``; torchvision reserves 0 for the background.

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
