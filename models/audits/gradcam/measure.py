"""Run the model of an audit: predictions and maps of a batch, as records."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import torch

from ....pipeline.errors import ModelError, PlanError, did_you_mean
from ...explain.cam.explainer import Cam, class_activation_maps, predicted
from ...explain.cam.memory import prepare_memory
from ...explain.cam.registry import DEFAULT
from ...explain.target_layer import TargetLayer, choose_target_layer
from ...zoo.device import torch_device
from ...zoo.forward import eval_mode, model_inputs, run_model
from .cells import cell_arrays, cell_columns
from .classes import ClassMatch
from .config import ALL, LABEL, PREDICTED, SECOND
from .features import FeatureProjection
from .map_columns import MAX_LOGITS, Annotations, ExplainedBatch, explained_columns
from .records import SCHEMA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ....pipeline.batch.batch import Batch
    from ...explain.cam.explainer import CamResult

ImageColumns = Callable[[Sequence[str], torch.Tensor], Mapping[str, Any]]
"""Columns of the records that come from keys and model inputs alone."""


class CamExplainer:
    """Computes the records of batches with one model, inside a context on the exit stack."""

    def __init__(
        self,
        model: torch.nn.Module,
        target_layer: str | None,
        match: ClassMatch,
        stack: ExitStack,
        image_columns: ImageColumns,
        cell_sample: Callable[[Sequence[str]], NDArray[np.bool_]],
        *,
        method: str = DEFAULT,
        targets: Sequence[str] = (PREDICTED,),
        seed: int = 0,
        precision: str = "float32",
        device: str = "auto",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self._device = torch_device(device)
        self._model = model.to(self._device)
        self._memory_format = prepare_memory(self._model)
        self._precision = precision
        self._target_layer = target_layer
        self._class_of_output = torch.tensor(match.class_of_output)
        self._outputs = torch.tensor([*match.outputs, -1])  # index -1: images without a label
        self._stack = stack
        self._image_columns = image_columns
        self._cell_sample = cell_sample
        self._method = method
        self._targets = tuple(targets)
        self._named = named_outputs(targets, match)
        self._projection = FeatureProjection(seed)
        self._facts = dict(facts or {})
        self._cam: Cam | None = None

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
        images = model_inputs(batch.images[rows], self._device, self._memory_format)
        labels = batch.labels[rows]
        outputs = self._outputs[labels.clamp_min(-1)]
        keys = [batch.keys[row] for row in own]
        cam = self._prepare_cam(images, keys[0])
        sets = self._target_sets(outputs)
        with torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._precision == "bfloat16", cache_enabled=False
        ):
            result = cam(images, list(sets.values()))
        check_finite(result.logits, keys)
        explained = ExplainedBatch(
            result,
            {name: number for number, name in enumerate(sets)},
            labels,
            outputs,
            self._class_of_output,
            (int(images.shape[2]), int(images.shape[3])),
        )
        annotations = Annotations(
            None if batch.boxes is None else [batch.boxes[row] for row in own],
            None if batch.masks is None else batch.masks[rows].cpu().numpy(),
        )
        columns = explained_columns(explained, self._targets[0], self._projection, annotations)
        columns |= self._image_columns(keys, images)
        columns |= self._cell_columns(result, self._cell_sample(keys))
        columns["key"] = keys
        columns["target_layer"] = [cam.name] * len(own)
        columns["model"] = [json.dumps(self._facts, sort_keys=True)] * len(own)
        return pa.record_batch(columns, schema=SCHEMA)

    def _cell_columns(self, result: CamResult, chosen: NDArray[np.bool_]) -> dict[str, list[Any]]:
        has_cells = result.weight is not None and len(result.weight) <= MAX_LOGITS
        activations = result.activations_nchw[torch.from_numpy(chosen).to(result.activations_nchw.device)]
        cells = None
        if has_cells and len(activations):
            cells = cell_arrays(activations, cast("torch.Tensor", result.weight), self._projection)
        return cell_columns(cells, chosen)

    def _prepare_cam(self, images: torch.Tensor, key: str) -> Cam:
        if self._cam is None:
            with eval_mode(self._model), torch.no_grad():
                check_finite(run_model(self._model, images[:1]), [key])
            layer = TargetLayer(self._target_layer or "")
            if not self._target_layer:
                layer = choose_target_layer(self._model, images[:1])
            self._facts["target_layer_note"] = layer.note
            self._cam = self._stack.enter_context(
                class_activation_maps(self._model, layer.name, self._method)
            )
        return self._cam

    def _target_sets(self, outputs: torch.Tensor) -> dict[str | int, Callable[[torch.Tensor], torch.Tensor]]:
        """Return the target sets by role or output: always those of the prediction and of the label."""
        sets: dict[str | int, Callable[[torch.Tensor], torch.Tensor]] = {
            PREDICTED: predicted,
            LABEL: partial(known_or_predicted, outputs),
        }
        if SECOND in self._targets and len(self._class_of_output) > 1:
            sets[SECOND] = runner_up
        return sets | {output: partial(constant_class, output) for output in self._named}


def runner_up(logits: torch.Tensor) -> torch.Tensor:
    """Return the class with the second highest logit, shape (N,)."""
    return logits.topk(2, dim=1).indices[:, 1]


def constant_class(output: int, logits: torch.Tensor) -> torch.Tensor:
    """Return one class for all images, shape (N,)."""
    return torch.full((len(logits),), output, dtype=torch.int64)


def known_or_predicted(outputs: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Return the labelled class, or the prediction if the label is not a class of the model."""
    outputs = outputs.to(logits.device)
    return torch.where(outputs >= 0, outputs, predicted(logits))


def named_outputs(targets: Sequence[str], match: ClassMatch) -> tuple[int, ...]:
    """Return the outputs of the classes that ``explain`` names, or of all.

    Raises:
        PlanError: the model has no such class, or too many for all of them.
    """
    outputs = len(match.class_of_output)
    if ALL in targets:
        if outputs > MAX_LOGITS:
            raise PlanError(
                f"explain: expected at most {MAX_LOGITS} classes for 'all', got {outputs:,} outputs of the model; name the "
                "classes, such as explain: [predicted, NAME]"
            )
        return tuple(range(outputs))
    return tuple(find_output(name, match) for name in targets if name not in (PREDICTED, LABEL, SECOND))


def find_output(name: str, match: ClassMatch) -> int:
    """Return the output of a class by name.

    Raises:
        PlanError: the model has no such class.
    """
    for output, number in enumerate(match.class_of_output):
        if match.names[number] == name:
            return output
    known = [match.names[number] for number in match.class_of_output]
    roles = (PREDICTED, LABEL, SECOND, ALL)
    raise PlanError(
        f"explain: expected {', '.join(roles)} or a class of the model, got {name!r}; "
        f"{did_you_mean(name, [*roles, *known]) or 'check the spelling'}"
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
