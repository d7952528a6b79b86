"""What a feed yields: the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, repr=False)
class Batch:
    """Finished images with everything that is known of them. Owned by the consumer.

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
    """uint8, shape (N, H, W), where the index has masks."""
    boxes: tuple[np.ndarray, ...] | None = None
    """Per image float32 (n, 4) as x0, y0, x1, y1 in pixels of the finished image, where the index has boxes."""
    partner_labels: torch.Tensor | None = None
    """int64, shape (N,): labels of the images mixed in by MixUp or CutMix."""
    partner_weights: torch.Tensor | None = None
    """float32, shape (N,), 0..1: the partner's share of the target."""
    num_left_out: int = 0
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
    def own(self) -> np.ndarray:
        """bool, shape (N,): rows that show the image they stand for, neither replaced nor padding."""
        return np.asarray(~(self.replaced | self.padding))

    def between(self, first: int, last: int) -> Batch:
        """Take some of the rows, without copying pixels."""
        some = slice(first, last)
        return replace(
            self,
            images=self.images[some],
            labels=self.labels[some],
            keys=self.keys[some],
            replaced=self.replaced[some],
            padding=self.padding[some],
            masks=None if self.masks is None else self.masks[some],
            boxes=None if self.boxes is None else self.boxes[some],
            partner_labels=None if self.partner_labels is None else self.partner_labels[some],
            partner_weights=None if self.partner_weights is None else self.partner_weights[some],
        )

    def without_padding(self) -> Batch:
        """Leave the padding out; it stands at the end, and may be all there is."""
        return self.between(0, self.num_images)


def _is_tensor(value: object) -> TypeGuard[torch.Tensor]:
    import torch

    return isinstance(value, torch.Tensor)


def _in_short(tensor: torch.Tensor) -> str:
    kind = str(tensor.dtype).removeprefix("torch.")
    where = "" if tensor.device.type == "cpu" else f" on {tensor.device}"
    return f"{kind}{list(tensor.shape)}{where}"
