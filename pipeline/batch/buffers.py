"""Batch buffers: images are collated and normalized into memory that is reused once it is released."""

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
"""Values normalized at a time: as floats they stay in a core's cache between the two passes."""


def _references(arrays: list[np.ndarray], number: int) -> int:
    """Count the references to an array of a list, the list's own included."""
    return sys.getrefcount(arrays[number])


_REFERENCES_WHEN_FREE = _references([np.empty(0)], 0)
"""Reference count of an array held only by its list; interpreters differ in what they add."""


class BufferPool:
    """Thread-safe pool of arrays that are reused once nothing references them.

    A newly allocated batch of floats costs the kernel thousands of zeroed pages, about as much time as normalizing it.
    Arrays need not be returned: one is free once its tensor and everything made from it is gone.
    """

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        """Return an uninitialized array of a shape and dtype."""
        with self._lock:
            for number in range(len(self._arrays)):
                if _references(self._arrays, number) == _REFERENCES_WHEN_FREE:
                    array = self._arrays[number]
                    if array.shape == shape and array.dtype == dtype:
                        return array
                    del array  # the name would count as a reference
            self._arrays = [array for array in self._arrays if array.shape[1:] == shape[1:]]
            fresh: np.ndarray = np.empty(shape, dtype)
            self._arrays.append(fresh)
            return fresh


class Normalizer:
    """Computes ``(image / 255 - mean) / std`` as float32 HWC, strip by strip, with one cast and one multiply-add."""

    def __init__(self, normalization: Normalization) -> None:
        mean, std = (np.asarray(values, np.float64) for values in (normalization.mean, normalization.std))
        scale, shift = 1 / (BYTE_RANGE * std), -mean / std
        self._scale, self._shift = scale.astype(np.float32), shift.astype(np.float32)
        self._matrix: np.ndarray | None = None
        """Scale and shift for images of three channels."""
        if len(scale) in (1, COLOR_CHANNELS):
            scale, shift = (np.broadcast_to(values, COLOR_CHANNELS) for values in (scale, shift))
            self._matrix = np.column_stack([np.diag(scale), shift]).astype(np.float32)

    def write(self, image: np.ndarray, out: np.ndarray) -> None:
        """Normalize one image into ``out``.

        Raises:
            PlanError: the number of channels does not match the number of constants.
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
    """Shape and dtype of the first image of a batch, which all others must match."""

    key: str
    shape: tuple[int, ...]
    dtype: Any
    """Of NumPy on the host, of torch on a device."""


@dataclass
class BatchBuffer:
    """Images of one batch on the host; threads write different rows concurrently."""

    num_images: int
    normalizer: Normalizer | None
    pool: BufferPool
    _images: np.ndarray | None = None
    _first: _ImageFormat | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def output_slot(self, row: int, size: Size) -> np.ndarray | None:
        """Return the row of an image as output array; None if the row is not uint8 RGB of this size."""
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
        """Write an HWC or HW image into its row, normalized if the plan normalizes.

        Raises:
            PlanError: its size or dtype differs from the other images.
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
        elif image.base is not images or image.strides != images.strides[1:]:  # else written in place
            images[row] = image

    def _rows_like(self, key: str, image: np.ndarray) -> tuple[np.ndarray, _ImageFormat]:
        """Return the memory of the batch, allocated for the format of its first image."""
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
            uint8 NHWC if the plan does not normalize and the policy yields bytes; else float32 NCHW in channels_last
            memory, which needs no transposition and is fastest for convolutions on a CPU.
        """
        import torch

        assert self._images is not None, "a batch holds at least one image"
        images = torch.from_numpy(self._images)
        return images if images.dtype == torch.uint8 else images.permute(0, 3, 1, 2)


@dataclass
class DeviceBuffer:
    """Images of one batch on a torch device, normalized there once complete. One thread at a time."""

    num_images: int
    normalization: Normalization | None
    device: str
    """A device of torch, such as ``cuda:0``."""
    _images: torch.Tensor | None = None
    _first: _ImageFormat | None = None

    def output_slot(self, row: int, size: Size) -> None:
        """Return None: images from the host are copied."""

    def put(self, row: int, key: str, image: np.ndarray | torch.Tensor) -> None:
        """Copy an HWC or HW image into its row; from the host where DALI could not process it.

        Raises:
            PlanError: its size or dtype differs from the other images.
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
        """Wait for the copies: DALI reuses their sources and does not synchronize with torch's stream."""
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
            f"preprocess: expected images with the same number of channels in a batch, got {first.shape[2:]} "
            f"({first.key!r}) and {shape[2:]} ({key!r}); convert all images to the same number"
        )
    height, width, *_ = first.shape
    return (
        f"preprocess: expected images of one size in a batch, got {width}x{height} ({first.key!r}) and "
        f"{shape[1]}x{shape[0]} ({key!r}); end preprocess with a Resize or a crop"
    )


def _other_kind(first: _ImageFormat, key: str, dtype: Any) -> str:
    return (
        f"augment: expected one dtype in a batch, got {first.dtype} ({first.key!r}) and {dtype} ({key!r}); apply the "
        "transform that changes the dtype to every image"
    )
