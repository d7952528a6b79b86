"""Encodes processed images and creates their records."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import PlanError
from ..index.file_info import content_hash

if TYPE_CHECKING:
    from ..batch.batch import Batch

EncodingName = Literal["png", "jpeg", "npy"]
SUFFIXES: dict[EncodingName, str] = {"png": "png", "jpeg": "jpg", "npy": "npy"}
MODES = {1: "L", 3: "RGB"}
"""Pillow's mode by number of channels; only these can be encoded as PNG or JPEG."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """Image encoder; thread-safe. Equal pixels give equal bytes."""

    encoding: EncodingName
    quality: int
    """JPEG quality."""

    def encode(self, image: np.ndarray, key: str) -> bytes:
        """Encode one image.

        Args:
            image: uint8 HWC, or with ``npy`` any array of a batch.
            key: key of the sample, for the error message.

        Raises:
            PlanError: the encoding does not support the array.
        """
        import cv2

        if self.encoding == "npy":
            return to_npy(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in MODES:
            raise PlanError(
                f"encoding: expected uint8 pixels of 1 or 3 channels to write as {self.encoding}, got "
                f"{image.dtype} {image.shape} for {key!r}; take --encoding npy, or leave out what makes floats"
            )
        flags = [cv2.IMWRITE_JPEG_QUALITY, self.quality] if self.encoding == "jpeg" else []
        pixels = image[..., ::-1] if image.shape[2] == 3 else image
        done, data = cv2.imencode(f".{SUFFIXES[self.encoding]}", np.ascontiguousarray(pixels), flags)
        assert done, "OpenCV encodes every picture of bytes"
        return data.tobytes()

    def record(self, batch: Batch, row: int, split: str | None) -> dict[str, Any]:
        """Create the record of one image of a batch, with encoded image and mask."""
        image = batch.images[row].numpy()
        key = batch.keys[row]
        data = self.encode(image, key)
        channels_last = image.dtype == np.uint8
        height, width = image.shape[:2] if channels_last else image.shape[1:]
        has_mask = batch.masks is not None and batch.has_mask is not None and bool(batch.has_mask[row])
        mask = None
        if batch.masks is not None:
            mask = Encoder("png", 0).encode(batch.masks[row].numpy()[..., None], key)
        return {
            "key": key,
            "split": split,
            "epoch": batch.epoch,
            "label": int(batch.labels[row]),
            "labels": _label_set(batch, row),
            "width": width,
            "height": height,
            "channels": image.shape[2] if channels_last else image.shape[0],
            **_annotations(batch, row),
            "has_mask": has_mask,
            "hash": content_hash(data),
            "image": data,
            "mask_image": mask,
        }


def _label_set(batch: Batch, row: int) -> list[int] | None:
    """Return the class numbers of one image; None if it is unlabelled, or the source has one class per image."""
    if batch.label_sets is None or bool((batch.label_sets[row] < 0).any()):
        return None
    found: list[int] = batch.label_sets[row].nonzero().flatten().tolist()
    return found


def _annotations(batch: Batch, row: int) -> dict[str, Any]:
    """Return boxes and keypoints of one image; None for missing annotations."""
    boxes = labels = keypoints = None
    if batch.boxes is not None and batch.has_boxes is not None and batch.has_boxes[row]:
        boxes = batch.boxes[row].tolist()
        labels = None if batch.box_labels is None else batch.box_labels[row].tolist()
    if batch.keypoints is not None and batch.has_keypoints is not None and batch.has_keypoints[row]:
        keypoints = batch.keypoints[row].reshape(-1, 3).tolist()
    return {"boxes": boxes, "box_labels": labels, "keypoints": keypoints}


def to_npy(array: np.ndarray) -> bytes:
    """Encode an array in NumPy's format, C-ordered."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()
