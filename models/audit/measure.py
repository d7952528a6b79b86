"""What is measured of every image: the model's answer, its maps and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...pipeline.errors import ModelError
from ..cam import (
    CamResult,
    GradCam,
    blank,
    border_mass,
    concentration,
    find_target_layer,
    grad_cam,
    peak,
    predicted,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...pipeline.batch import Batch
    from ...pipeline.jobs import Record


class Examiner:
    """Explains batches with one model; it is lent to Grad-CAM until the stack closes."""

    def __init__(
        self,
        model: torch.nn.Module,
        target_layer: str | None,
        num_classes: int,
        device: str,
        stack: ExitStack,
    ) -> None:
        self._device = choose_device(device)
        self._model = model.to(self._device)
        self._target_layer = target_layer
        self._num_classes = num_classes
        self._stack = stack
        self._cam: GradCam | None = None

    def __call__(self, batch: Batch) -> list[Record]:
        """Explain a batch: a record for every image that is its own, neither a replacement nor padding.

        Raises:
            ModelError: the model has fewer outputs than the index has classes, or the layer gives no map.
        """
        kept = np.flatnonzero(batch.own)
        if not len(kept):
            return []
        rows = torch.from_numpy(kept)
        images = to_model(batch.images[rows], self._device)
        labels = batch.labels[rows]
        cam = self._lend(images)
        explained = cam(images, [predicted, lambda logits: self._to_explain(logits, labels)])
        boxes = None if batch.boxes is None else [batch.boxes[row] for row in kept]
        columns = describe_images(explained, labels, boxes, tuple(images.shape[2:]))
        columns["key"] = [batch.keys[row] for row in kept]
        columns["target_layer"] = [cam.name] * len(kept)
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _lend(self, images: torch.Tensor) -> GradCam:
        if self._cam is None:
            layer = self._target_layer or find_target_layer(self._model, images[:1])
            self._cam = self._stack.enter_context(grad_cam(self._model, layer))
        return self._cam

    def _to_explain(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Explain the label; the prediction where there is none, to be dropped later."""
        if logits.shape[1] < self._num_classes:
            raise ModelError(
                f"model: wanted at least {self._num_classes} outputs, one for each class of the index, got "
                f"{logits.shape[1]}; audit a model that was trained on this data, or the index that it knows"
            )
        labels = labels.to(logits.device)
        return torch.where(labels >= 0, labels, predicted(logits))


def choose_device(name: str) -> torch.device:
    """Turn ``auto`` into a GPU where there is one."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_model(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Bring a batch to the model: uint8 NHWC becomes float32 NCHW of 0..1, float NCHW is passed on."""
    if images.dtype == torch.uint8:
        return images.to(device).permute(0, 3, 1, 2).float().div(255).contiguous()
    return images.to(device)


def describe_images(
    explained: CamResult, labels: torch.Tensor, boxes: Sequence[NDArray[Any]] | None, size: tuple[int, ...]
) -> dict[str, list[Any]]:
    """Turn the maps of a batch into the columns of its records, but for the key and the layer."""
    height, width = size
    maps, maps_true = explained.maps
    scores, scores_true = explained.scores
    labelled = (labels >= 0).numpy()
    empty, empty_true = blank(maps, scores), blank(maps_true, scores_true)
    softmax = explained.logits.float().softmax(dim=1)
    best = softmax.topk(min(5, softmax.shape[1]), dim=1).indices.cpu()
    chosen, chosen_true = (softmax.gather(1, each[:, None])[:, 0].cpu() for each in explained.targets)
    says = (~empty).cpu().numpy()
    peaks = np.where(empty_true.cpu().numpy()[:, None], -1, peak(maps_true, height, width).cpu().numpy())
    return {
        "label": labels.tolist(),
        "prediction": explained.targets[0].tolist(),
        "confidence": chosen.tolist(),
        "top5": best.tolist(),
        "true_confidence": where(labelled, chosen_true.tolist()),
        "map": flat(maps),
        "map_true": where(labelled, flat(maps_true)),
        "map_height": [maps.shape[1]] * len(maps),
        "map_width": [maps.shape[2]] * len(maps),
        "border_mass": where(says, border_mass(maps, height=height, width=width).tolist()),
        "concentration": where(says, concentration(maps).tolist()),
        "blank": empty.tolist(),
        "blank_true": where(labelled, empty_true.tolist()),
        **point(peaks, labelled, boxes, height, width),
    }


def where(flags: NDArray[np.bool_], values: list[Any]) -> list[Any]:
    """Keep the values whose flag is True; the others become None."""
    return [value if flag else None for flag, value in zip(flags.tolist(), values, strict=True)]


def flat(maps: torch.Tensor) -> list[NDArray[np.float32]]:
    """List maps (N, h, w) as flat arrays."""
    return list(maps.cpu().numpy().reshape(len(maps), -1))


def point(
    peaks: NDArray[np.int64],
    labelled: NDArray[np.bool_],
    boxes: Sequence[NDArray[Any]] | None,
    height: int,
    width: int,
) -> dict[str, list[Any]]:
    """Play the pointing game for a batch, tolerance 0 px; None for images without boxes."""
    hits: list[bool | None] = []
    centres: list[bool | None] = []
    covers: list[float | None] = []
    for row, (x, y) in enumerate(peaks.tolist()):
        found = None if boxes is None or not len(boxes[row]) else np.asarray(boxes[row])
        hits.append(
            None if found is None or not labelled[row] else x >= 0 and inside(found, x + 0.5, y + 0.5)
        )
        centres.append(None if found is None else inside(found, width / 2, height / 2))
        covers.append(None if found is None else covered(found, height, width))
    return {"hit": hits, "centre_hit": centres, "box_cover": covers}


def inside(boxes: NDArray[Any], x: float, y: float) -> bool:
    """Tell whether a point lies in any box (n, 4) of x0, y0, x1, y1."""
    x0, y0, x1, y1 = boxes.T
    return bool(((x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)).any())


def covered(boxes: NDArray[Any], height: int, width: int) -> float:
    """Return the share of the image that boxes cover together, counted in pixels whose centre lies in one."""
    across, down = np.arange(width) + 0.5, np.arange(height) + 0.5
    columns = (boxes[:, :1] <= across) & (across <= boxes[:, 2:3])
    rows = (boxes[:, 1:2] <= down) & (down <= boxes[:, 3:4])
    return float(np.any(rows[:, :, None] & columns[:, None, :], axis=0).mean())


def even_border_mass(map_height: int, map_width: int) -> float:
    """Return the border mass of a map that is the same everywhere: what to compare others with."""
    return float(border_mass(torch.ones(1, map_height, map_width))[0])
