"""Where finished pictures are put together: one buffer for a batch, used again once nobody holds it."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ..errors import PlanError
from ..geometry import Size
from ..plan.plan import Normalization

if TYPE_CHECKING:
    import torch

BYTE_RANGE = 255.0
COLOR_CHANNELS = 3
STRIP_VALUES = 80_000
"""Values that are normalised at a time: as floats they stay in the cache of a core between the two passes over them."""


def _references(arrays: list[np.ndarray], number: int) -> int:
    """Count the references to an array of a list, the list's own included."""
    return sys.getrefcount(arrays[number])


_REFERENCES_WHEN_FREE = _references([np.empty(0)], 0)
"""Of an array that only its list holds; interpreters differ in what they add to it."""


class BufferPool:
    """Hands out arrays and takes back those that nobody holds any more. Any thread may take.

    A fresh batch of floats costs the kernel thousands of zeroed pages, about as much time as normalising it. A
    consumer need not give anything back: an array is free once its tensor and everything made from it is gone.
    """

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        """Return an array of a shape and type with any content."""
        with self._lock:
            for number in range(len(self._arrays)):
                if _references(self._arrays, number) == _REFERENCES_WHEN_FREE:
                    array = self._arrays[number]
                    if array.shape == shape and array.dtype == dtype:
                        return array
                    del array  # a name for it would count as a holder
            self._arrays = [array for array in self._arrays if array.shape[1:] == shape[1:]]
            fresh: np.ndarray = np.empty(shape, dtype)
            self._arrays.append(fresh)
            return fresh


class Normalizer:
    """Writes ``(image / 255 - mean) / std`` as float32 HWC: strip by strip one cast and one multiply-add."""

    def __init__(self, normalization: Normalization) -> None:
        mean, std = (np.asarray(values, np.float64) for values in (normalization.mean, normalization.std))
        scale, shift = 1 / (BYTE_RANGE * std), -mean / std
        self._scale, self._shift = scale.astype(np.float32), shift.astype(np.float32)
        self._matrix: np.ndarray | None = None
        """Of images of three channels."""
        if len(scale) in (1, COLOR_CHANNELS):
            scale, shift = (np.broadcast_to(values, COLOR_CHANNELS) for values in (scale, shift))
            self._matrix = np.column_stack([np.diag(scale), shift]).astype(np.float32)

    def write(self, image: np.ndarray, out: np.ndarray) -> None:
        """Normalise one picture.

        Raises:
            PlanError: it has another number of channels than there are constants.
        """
        height, width, channels = image.shape
        if channels != len(self._scale) != 1:
            raise PlanError(
                f"Normalize: expected images of {len(self._scale)} channels, as it has constants, got shape {image.shape}; "
                "write a mean and std for each channel, or let ToGray keep num_output_channels: 3"
            )
        rows = max(1, STRIP_VALUES // (channels * width))
        for top in range(0, height, rows):
            strip = out[top : top + rows]
            np.copyto(strip, image[top : top + rows], casting="same_kind")
            if channels == COLOR_CHANNELS and self._matrix is not None:
                cv2.transform(strip, self._matrix, dst=strip)
            else:
                np.multiply(strip, self._scale, out=strip)
                np.add(strip, self._shift, out=strip)


@dataclass(frozen=True, slots=True)
class _ImageFormat:
    """The first picture of a batch, which decides what all are like."""

    key: str
    shape: tuple[int, ...]
    dtype: Any
    """Of NumPy on the host, of torch on a device."""


@dataclass
class BatchBuffer:
    """The pictures of one batch while they are made; threads write different rows at the same time."""

    num_images: int
    normalizer: Normalizer | None
    pool: BufferPool
    _images: np.ndarray | None = None
    _first: _ImageFormat | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def output_slot(self, row: int, size: Size) -> np.ndarray | None:
        """Give a picture its row before it is made; None where the row is no uint8 RGB picture of this size."""
        if self.normalizer is not None:
            return None
        if self._images is None:
            with self._lock:
                if self._images is None:
                    self._images = self.pool.take((self.num_images, *size, 3), np.uint8)
        output_slots = self._images
        return (
            output_slots[row]
            if output_slots.shape[1:] == (*size, 3) and output_slots.dtype == np.uint8
            else None
        )

    def put(self, row: int, key: str, image: np.ndarray) -> None:
        """Put a finished HWC or HW picture into its row, normalised if the plan says so.

        Raises:
            PlanError: it is not as large as the others, or of another kind of pixels.
        """
        if image.ndim == 2:  # one channel, whose axis Albumentations leaves out
            image = image[:, :, None]
        images, first = self._rows_like(key, image)
        if image.shape != first.shape:
            raise PlanError(_other_size(first, key, image.shape))
        if image.dtype != first.dtype and self.normalizer is None:
            raise PlanError(_other_kind(first, key, image.dtype))
        if self.normalizer is not None:
            self.normalizer.write(image, images[row])
        elif image.base is not images or image.strides != images.strides[1:]:  # else it was made there
            images[row] = image

    def _rows_like(self, key: str, image: np.ndarray) -> tuple[np.ndarray, _ImageFormat]:
        """Find the memory of the batch; its first picture decides what it is like."""
        if self._first is None or self._images is None:
            with self._lock:
                if self._first is None or self._images is None:
                    normalized = self.normalizer is not None or image.dtype != np.uint8
                    shape = (self.num_images, *image.shape)
                    dtype = np.float32 if normalized else np.uint8
                    if self._images is None or self._images.shape != shape or self._images.dtype != dtype:
                        self._images = self.pool.take(shape, dtype)
                    self._first = _ImageFormat(key, image.shape, image.dtype)
        return self._images, self._first

    def synchronize(self) -> None:
        """Do nothing: rows on the host are written when ``put`` returns."""

    def tensor(self) -> torch.Tensor:
        """Return the batch.

        Returns:
            uint8 NHWC where the plan does not normalise and the policy left bytes; else float32 NCHW in channels_last
            memory, which costs no transposition and is what convolutions on a CPU like best.
        """
        import torch

        assert self._images is not None, "a batch holds at least one image"
        images = torch.from_numpy(self._images)
        return images if images.dtype == torch.uint8 else images.permute(0, 3, 1, 2)


@dataclass
class DeviceBuffer:
    """The pictures of one batch on a device of torch, normalised there once all are in. One thread at a time."""

    num_images: int
    normalization: Normalization | None
    device: str
    """A device of torch, such as ``cuda:0``."""
    _images: torch.Tensor | None = None
    _first: _ImageFormat | None = None

    def output_slot(self, row: int, size: Size) -> None:
        """Give no room: what is made on the host comes here by a copy."""

    def put(self, row: int, key: str, image: np.ndarray | torch.Tensor) -> None:
        """Put a finished HWC or HW picture into its row; from the host where DALI could not make it.

        Raises:
            PlanError: it is not as large as the others, or of another kind of pixels.
        """
        import torch

        if isinstance(image, np.ndarray):
            image = torch.from_numpy(np.ascontiguousarray(image))
        if image.ndim == 2:  # one channel, whose axis Albumentations leaves out
            image = image[:, :, None]
        shape = tuple(image.shape)
        if self._images is None or self._first is None:
            self._first = _ImageFormat(key, shape, image.dtype)
            kind = torch.uint8 if image.dtype == torch.uint8 else torch.float32
            self._images = torch.empty((self.num_images, *shape), dtype=kind, device=self.device)
        if shape != self._first.shape:
            raise PlanError(_other_size(self._first, key, shape))
        if image.dtype != self._first.dtype:
            raise PlanError(_other_kind(self._first, key, image.dtype))
        self._images[row].copy_(image)

    def synchronize(self) -> None:
        """Wait for the copies: their sources go back to DALI, which knows nothing of torch's stream."""
        import torch

        if self.device != "cpu":
            torch.cuda.current_stream(self.device).synchronize()

    def tensor(self) -> torch.Tensor:
        """Return the batch on the device, as ``BatchBuffer.tensor`` does on the host."""
        import torch

        assert self._images is not None, "a batch holds at least one image"
        if self.normalization is None:
            return self._images if self._images.dtype == torch.uint8 else self._images.permute(0, 3, 1, 2)
        mean, std = (
            torch.tensor(values, device=self.device)
            for values in (self.normalization.mean, self.normalization.std)
        )
        return self._images.float().div_(BYTE_RANGE).sub_(mean).div_(std).permute(0, 3, 1, 2)


def _other_size(first: _ImageFormat, key: str, shape: tuple[int, ...]) -> str:
    if shape[2:] != first.shape[2:]:
        return (
            f"preprocess: expected images of one number of channels in a batch, got {first.shape[2:]} ({first.key!r}) and "
            f"{shape[2:]} ({key!r}); let every image have as many"
        )
    height, width, *_ = first.shape
    return (
        f"preprocess: expected images of one size in a batch, got {width}x{height} ({first.key!r}) and "
        f"{shape[1]}x{shape[0]} ({key!r}); end preprocess with a Resize or a crop"
    )


def _other_kind(first: _ImageFormat, key: str, dtype: Any) -> str:
    return (
        f"augment: expected pixels of one type in a batch, got {first.dtype} ({first.key!r}) and {dtype} ({key!r}); let the "
        "transform that changes the type do it for every image"
    )
