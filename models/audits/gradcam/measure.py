"""Compute the records of an audit: predictions, Grad-CAM maps and map statistics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from ....pipeline.errors import ModelError, PlanError, did_you_mean
from ...explain.grad_cam import (
    CamResult,
    GradCam,
    border_mass,
    concentration,
    grad_cam,
    is_empty,
    peak,
    predicted,
)
from ...explain.target_layer import TargetLayer, choose_target_layer
from ...zoo.forward import eval_mode, run_model
from .classes import ClassMatch
from .records import SCHEMA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ....pipeline.batch.batch import Batch


MAX_LOGITS = 100
"""With more outputs, the records have no logits."""
PREDICTED, LABEL = "predicted", "label"


class CamExplainer:
    """Computes the records of batches with one model, inside a Grad-CAM context on the exit stack."""

    def __init__(
        self,
        model: torch.nn.Module,
        target_layer: str | None,
        match: ClassMatch,
        stack: ExitStack,
        *,
        explain: str = PREDICTED,
        device: str = "auto",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self._device = choose_device(device)
        self._model = model.to(self._device)
        self._target_layer = target_layer
        self._class_of_output = torch.tensor(match.class_of_output)
        self._outputs = torch.tensor([*match.outputs, -1])  # index -1: images without a label
        self._stack = stack
        self._explain = explain
        self._class = None if explain in (PREDICTED, LABEL) else find_output(explain, match)
        self._facts = dict(facts or {})
        self._cam: GradCam | None = None

    def __call__(self, batch: Batch) -> pa.RecordBatch:
        """Return records: a row for every image of a batch that is neither a replacement nor padding.

        Raises:
            ModelError: logits are not finite, the target layer has no spatial map, or the model does not accept images of
                this size.
        """
        own = np.flatnonzero(batch.is_valid)
        if not len(own):
            return pa.RecordBatch.from_pylist([], schema=SCHEMA)
        rows = torch.from_numpy(own)
        images = to_model_input(batch.images[rows], self._device)
        labels = batch.labels[rows]
        outputs = self._outputs[labels.clamp_min(-1)]
        keys = [batch.keys[row] for row in own]
        cam = self._prepare_cam(images, keys[0])
        explained = cam(
            images,
            [lambda logits: self._target_classes(logits, outputs), partial(known_or_predicted, outputs)],
        )
        check_finite(explained.logits, keys)
        boxes = None if batch.boxes is None else [batch.boxes[row] for row in own]
        columns = record_columns(
            explained, labels, outputs, self._class_of_output, boxes, tuple(images.shape[2:])
        )
        columns["key"] = keys
        columns["target_layer"] = [cam.name] * len(own)
        columns["model"] = [json.dumps(self._facts, sort_keys=True)] * len(own)
        return pa.record_batch(columns, schema=SCHEMA)

    def _prepare_cam(self, images: torch.Tensor, key: str) -> GradCam:
        if self._cam is None:
            with eval_mode(self._model), torch.no_grad():
                check_finite(run_model(self._model, images[:1]), [key])
            layer = TargetLayer(self._target_layer or "")
            if not self._target_layer:
                layer = choose_target_layer(self._model, images[:1])
            self._facts["target_layer_note"] = layer.note
            self._cam = self._stack.enter_context(grad_cam(self._model, layer.name))
        return self._cam

    def _target_classes(self, logits: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        if self._explain == PREDICTED:
            return predicted(logits)
        if self._class is None:
            return known_or_predicted(outputs, logits)
        return torch.full((len(logits),), self._class, dtype=torch.int64)


def known_or_predicted(outputs: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Return the labelled class, or the prediction if the label is not a class of the model."""
    outputs = outputs.to(logits.device)
    return torch.where(outputs >= 0, outputs, predicted(logits))


def find_output(name: str, match: ClassMatch) -> int:
    """Return the output of a class by name.

    Raises:
        PlanError: the model has no such class.
    """
    for output, number in enumerate(match.class_of_output):
        if match.names[number] == name:
            return output
    known = [match.names[number] for number in match.class_of_output]
    raise PlanError(
        f"explain: expected predicted, label or a class of the model, got {name!r}; "
        f"{did_you_mean(name, [PREDICTED, LABEL, *known]) or 'check the spelling'}"
    )


def check_finite(logits: torch.Tensor, keys: Sequence[str]) -> None:
    """Check that logits are finite.

    Raises:
        ModelError: a logit of an image is NaN or infinite.
    """
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        return
    finite = torch.isfinite(logits).all(dim=1)
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0])
        raise ModelError(
            f"model: expected finite logits, got logits that are not finite (NaN or infinite) for {keys[first]!r}, the "
            f"first of {int((~finite).sum())} images of its batch; the weights are damaged or their training diverged: "
            "use an earlier checkpoint"
        )


def choose_device(name: str) -> torch.device:
    """Return the torch device of a name; ``auto`` is a GPU if available.

    Raises:
        ModelError: the name is not a torch device, or the device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"device: expected auto, cpu or cuda, got {name!r}; correct it") from error
    if device.type == "cuda" and not (
        torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    ):
        raise ModelError(
            f"device: expected a GPU for {name!r}, got {torch.cuda.device_count()} GPUs that torch can use; write auto or cpu"
        )
    return device


def to_model_input(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move a batch to the model's device: uint8 NHWC becomes float32 NCHW in 0..1, float NCHW is unchanged."""
    if images.dtype == torch.uint8:
        return images.to(device).permute(0, 3, 1, 2).float().div(255).contiguous()
    return images.to(device)


def record_columns(
    explained: CamResult,
    labels: torch.Tensor,
    outputs: torch.Tensor,
    class_of_output: torch.Tensor,
    boxes: Sequence[NDArray[Any]] | None,
    size: tuple[int, ...],
) -> dict[str, list[Any]]:
    """Return the columns of a batch's records, except key, layer and model.

    Args:
        explained: results for the target class and for the labelled class.
        labels: class numbers of the index, -1 for unlabelled images.
        outputs: model outputs of the labels, -1 if there is none.
        class_of_output: class number of each output.
        boxes: per image, None without boxes.
        size: height and width of the images in pixels.
    """
    height, width = size
    finite, finite_true = (torch.isfinite(each).all((1, 2)) for each in explained.pre_relu)
    maps, maps_true = (each.nan_to_num(0, 0, 0) for each in explained.maps)
    scores, scores_true = explained.scores
    known = (outputs >= 0).numpy()
    has_map = finite.cpu().numpy()
    has_map_true = known & finite_true.cpu().numpy()
    empty, empty_true = is_empty(maps, scores), is_empty(maps_true, scores_true)
    logits = explained.logits.double().cpu()
    softmax = logits.softmax(dim=1)
    predicted_output = logits.argmax(dim=1)
    best = softmax.topk(min(5, softmax.shape[1]), dim=1).indices
    confidence = softmax.gather(1, predicted_output[:, None])[:, 0]
    confidence_true = softmax.gather(1, explained.targets[1].cpu()[:, None])[:, 0]
    has_evidence = (~empty).cpu().numpy() & has_map
    peaks = np.where(empty_true.cpu().numpy()[:, None], -1, peak(maps_true, height, width).cpu().numpy())
    shown = logits.float().numpy() if logits.shape[1] <= MAX_LOGITS else None
    return {
        "label": labels.tolist(),
        "known": known.tolist(),
        "prediction": class_of_output[predicted_output].tolist(),
        "output": predicted_output.tolist(),
        "logits": [None] * len(labels) if shown is None else list(shown),
        "confidence": confidence.tolist(),
        "top5": class_of_output[best].tolist(),
        "true_confidence": mask_values(known, confidence_true.tolist()),
        "explained": class_of_output[explained.targets[0].cpu()].tolist(),
        "map": mask_values(has_map, flatten_maps(maps)),
        "map_true": mask_values(has_map_true, flatten_maps(maps_true)),
        "map_height": [maps.shape[1]] * len(maps),
        "map_width": [maps.shape[2]] * len(maps),
        "image_height": [height] * len(maps),
        "image_width": [width] * len(maps),
        "border_mass": mask_values(has_evidence, border_mass(maps, height=height, width=width).tolist()),
        "concentration": mask_values(has_evidence, concentration(maps).tolist()),
        "blank": mask_values(has_map, empty.tolist()),
        "blank_true": mask_values(has_map_true, empty_true.tolist()),
        "no_map": (~has_map).tolist(),
        **pointing_game_columns(peaks, has_map_true, boxes, height, width),
    }


def mask_values(flags: NDArray[np.bool_], values: list[Any]) -> list[Any]:
    """Replace the values whose flag is False by None."""
    return [value if flag else None for flag, value in zip(flags.tolist(), values, strict=True)]


def flatten_maps(maps: torch.Tensor) -> list[NDArray[np.float32]]:
    """Return maps (N, h, w) as a list of flat arrays."""
    return list(maps.cpu().numpy().reshape(len(maps), -1))


def pointing_game_columns(
    peaks: NDArray[np.int64],
    labelled: NDArray[np.bool_],
    boxes: Sequence[NDArray[Any]] | None,
    height: int,
    width: int,
) -> dict[str, list[Any]]:
    """Return the pointing-game columns of a batch, tolerance 0 px; None for images without boxes."""
    hits: list[bool | None] = []
    centres: list[bool | None] = []
    covers: list[float | None] = []
    for row, (x, y) in enumerate(peaks.tolist()):
        found = None if boxes is None or not len(boxes[row]) else np.asarray(boxes[row])
        hits.append(
            None if found is None or not labelled[row] else x >= 0 and in_any_box(found, x + 0.5, y + 0.5)
        )
        centres.append(None if found is None else in_any_box(found, width / 2, height / 2))
        covers.append(None if found is None else box_coverage(found, height, width))
    return {"hit": hits, "centre_hit": centres, "box_cover": covers}


def in_any_box(boxes: NDArray[Any], x: float, y: float) -> bool:
    """Return whether a point is in any of the boxes (n, 4): x0, y0, x1, y1."""
    x0, y0, x1, y1 = boxes.T
    return bool(((x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)).any())


def box_coverage(boxes: NDArray[Any], height: int, width: int) -> float:
    """Return the fraction of the image covered by the union of boxes, counted in pixels by their centres."""
    across, down = np.arange(width) + 0.5, np.arange(height) + 0.5
    columns = (boxes[:, :1] <= across) & (across <= boxes[:, 2:3])
    rows = (boxes[:, 1:2] <= down) & (down <= boxes[:, 3:4])
    return float(np.any(rows[:, :, None] & columns[:, None, :], axis=0).mean())


def uniform_border_mass(map_height: int, map_width: int, height: int = 224, width: int = 224) -> float:
    """Return the border mass of a uniform map for an image size, as a baseline."""
    return float(border_mass(torch.ones(1, map_height, map_width), height=height, width=width)[0])
