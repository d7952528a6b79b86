"""Columns of the records that come from logits and maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...explain.maps import is_empty
from ...explain.measures.evidence import evidence_columns
from .config import LABEL, PREDICTED, SECOND

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from ...explain.grad_cam import CamResult
    from .features import FeatureProjection

MAX_LOGITS = 100
"""With more outputs, the records have no logits, and ``explain`` does not take all classes."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """Boxes and masks of a batch, None where the index has none."""

    boxes: Sequence[NDArray[Any]] | None = None
    masks: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class ExplainedBatch:
    """Logits and maps of a batch, with the numbers of its classes."""

    result: CamResult
    places: Mapping[str | int, int]
    """Place of each target set in the result, by role, or by output for a named class."""
    labels: torch.Tensor
    """Class numbers of the index, -1 for unlabelled images."""
    outputs: torch.Tensor
    """Model outputs of the labels, -1 if there is none."""
    class_of_output: torch.Tensor
    """Class number of each output."""
    size: tuple[int, int]
    """Height and width of the images in pixels."""

    def maps(self, role: str | int) -> MapsOfRole:
        """Return maps, scores and classes of a target set."""
        place = self.places[role]
        signed = self.result.pre_relu[place].cpu()
        return MapsOfRole(
            signed.nan_to_num(0, 0, 0),
            torch.isfinite(signed).all((1, 2)).numpy(),
            self.result.scores[place].cpu(),
            self.class_of_output[self.result.targets[place].cpu()].tolist(),
        )


@dataclass(frozen=True, slots=True)
class MapsOfRole:
    """Maps of one target set of a batch."""

    signed: torch.Tensor
    """Before the ReLU, float32 (N, h, w); 0 in place of values that are not finite."""
    finite: NDArray[np.bool_]
    scores: torch.Tensor
    """Logits of the explained classes."""
    classes: list[int]

    @property
    def rectified(self) -> torch.Tensor:
        """Evidence for the class."""
        return self.signed.clamp_min(0)

    @property
    def empty(self) -> NDArray[np.bool_]:
        """Maps without evidence for the class."""
        return np.asarray(is_empty(self.rectified, self.scores).numpy())

    def evidence(
        self, size: tuple[int, int], annotations: Annotations, chosen: NDArray[np.bool_] | None = None
    ) -> dict[str, pa.Array]:
        """Measure the maps of an image size; those that are not chosen or not finite have no values."""
        usable = self.finite if chosen is None else self.finite & chosen
        signed = np.where(usable[:, None, None], self.signed.numpy(), np.nan)
        return evidence_columns(
            signed, size, annotations.boxes, annotations.masks, scores=self.scores.numpy()
        )


def explained_columns(
    explained: ExplainedBatch,
    first: str,
    projection: FeatureProjection,
    annotations: Annotations,
) -> dict[str, Any]:
    """Return the columns of a batch that come from its logits and maps.

    Args:
        explained: results for the prediction, the label and the other targets.
        first: target of the column ``map``: a role, or the name of a class.
        projection: of the features.
        annotations: of the batch.
    """
    height, width = explained.size
    named = [place for place in explained.places if isinstance(place, int)]
    role = first if first in explained.places else PREDICTED if first == SECOND else named[0]
    shown, of_label, of_prediction = explained.maps(role), explained.maps(LABEL), explained.maps(PREDICTED)
    known = (explained.outputs >= 0).numpy()
    maps = shown.signed
    evidence = shown.evidence(explained.size, annotations)
    of_object = of_label.evidence(explained.size, annotations, known)
    second: dict[str, list[Any]] = {name: [None] * len(known) for name in ("map_second", "map_second_scale")}
    if SECOND in explained.places:
        of_second = explained.maps(SECOND)
        second = scaled_maps("map_second", of_second, of_second.finite)
    return {
        **prediction_columns(explained),
        "explained": shown.classes,
        **scaled_maps("map", shown, shown.finite),
        **scaled_maps("map_true", of_label, known & of_label.finite),
        **second,
        **named_map_columns([explained.maps(output) for output in named], len(known)),
        "map_height": [maps.shape[1]] * len(maps),
        "map_width": [maps.shape[2]] * len(maps),
        **projection.columns(
            explained.result.activations_nchw,
            of_prediction.rectified,
            of_prediction.finite & ~of_prediction.empty,
        ),
        "image_height": [height] * len(maps),
        "image_width": [width] * len(maps),
        **evidence,
        "hit": of_object["hit"],
        "blank_true": of_object["blank"],
    }


def prediction_columns(explained: ExplainedBatch) -> dict[str, list[Any]]:
    """Return the columns that come from the logits."""
    classes = explained.class_of_output
    known = (explained.outputs >= 0).numpy()
    logits = explained.result.logits.double().cpu()
    softmax = logits.softmax(dim=1)
    output = logits.argmax(dim=1)
    best = softmax.topk(min(5, softmax.shape[1]), dim=1).indices
    of_label = softmax.gather(1, explained.outputs.clamp_min(0)[:, None])[:, 0]
    has_second = logits.shape[1] > 1
    return {
        "label": explained.labels.tolist(),
        "known": known.tolist(),
        "prediction": classes[output].tolist(),
        "output": output.tolist(),
        "logits": list(logits.float().numpy()) if logits.shape[1] <= MAX_LOGITS else [None] * len(logits),
        "confidence": softmax.gather(1, output[:, None])[:, 0].tolist(),
        "top5": classes[best].tolist(),
        "second": classes[logits.topk(2, dim=1).indices[:, 1]].tolist()
        if has_second
        else [None] * len(logits),
        "true_confidence": mask_values(known, of_label.tolist()),
    }


def scaled_maps(name: str, maps: MapsOfRole, chosen: NDArray[np.bool_]) -> dict[str, list[Any]]:
    """Return maps divided by their largest absolute value as flat float16 arrays, and that value; None if not chosen."""
    flat = maps.signed.flatten(1)
    scales = flat.abs().amax(1)
    values = (flat / torch.where(scales > 0, scales, 1)[:, None]).half().numpy()
    return {name: mask_values(chosen, list(values)), f"{name}_scale": mask_values(chosen, scales.tolist())}


def named_map_columns(of_classes: Sequence[MapsOfRole], num_images: int) -> dict[str, list[Any]]:
    """Return the columns of the maps of named classes: a list for each image."""
    columns = [scaled_maps("map", maps, maps.finite) for maps in of_classes]
    return {
        "map_classes": [[maps.classes[row] for maps in of_classes] for row in range(num_images)],
        "maps": [[each["map"][row] for each in columns] for row in range(num_images)],
        "map_scales": [[each["map_scale"][row] for each in columns] for row in range(num_images)],
    }


def mask_values(flags: NDArray[np.bool_], values: list[Any]) -> list[Any]:
    """Replace the values whose flag is False by None."""
    return [value if flag else None for flag, value in zip(flags.tolist(), values, strict=True)]
