"""The audited model as later stages use it: probabilities, maps of the same layer, and what removed pixels become."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from ....pipeline.compiler.program import Program
from ...explain.cam.memory import prepare_memory
from ...explain.grad_cam import Cam
from ...explain.perturb.fill import Removal, fill_constant
from ...zoo.device import torch_device
from ...zoo.forward import eval_mode, model_inputs, run_model
from ...zoo.heads import num_outputs
from .audited_model import load_audited_model, match_audited_classes

if TYPE_CHECKING:
    from ....pipeline.batch.batch import Batch
    from .classes import ClassMatch
    from .config import AuditConfig


@dataclass(frozen=True, slots=True)
class AuditModel:
    """The model of an audit in eval mode on its device."""

    model: torch.nn.Module
    device: torch.device
    match: ClassMatch
    several: bool
    """Any number of classes per image, each with a sigmoid of its own."""
    memory_format: torch.memory_format
    """Of the images, as in the stage of the maps: other formats round differently."""
    remove: Removal
    """Replaces pixels by the data set's channel mean, or by the image's own where the plan does not normalise."""

    def images(self, batch: Batch) -> tuple[torch.Tensor, list[str]]:
        """Return the model inputs of a batch's usable images and their keys."""
        rows = np.flatnonzero(batch.is_valid)
        return self.inputs(batch.images[torch.from_numpy(rows)]), [batch.keys[row] for row in rows]

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """Return images of a batch as the model takes them: float NCHW on its device."""
        return model_inputs(images, self.device, self.memory_format)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, K), on the CPU, without gradients."""
        with torch.no_grad():
            return torch.as_tensor(run_model(self.model, images)).float().cpu()

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of the outputs (N, K), on the CPU: softmax, or sigmoid with several classes per image."""
        logits = self.logits(images)
        return logits.sigmoid() if self.several else logits.softmax(dim=1)

    def output_of(self, number: int) -> int:
        """Return the output of a class by its number in the records; -1 if the model does not have it."""
        return self.match.class_of_output.index(number) if number in self.match.class_of_output else -1


@contextmanager
def open_audit_model(audit: AuditConfig) -> Iterator[AuditModel]:
    """Load the model and put it into eval mode.

    Raises:
        ModelError: no such model or device.
    """
    model = load_audited_model(audit)
    device = torch_device(audit.device)
    model = model.to(device)
    normalized = Program.compile(audit.plan).normalization is not None
    with eval_mode(model):
        yield AuditModel(
            model,
            device,
            match_audited_classes(audit, num_outputs(model)),
            several=_has_several(audit),
            memory_format=prepare_memory(model),
            remove=partial(fill_constant, value=0.0 if normalized else None),
        )


def signed_maps(cam: Cam, images: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """Return the signed maps (N, h, w) of images for outputs (N,), float32 on the CPU."""
    signed: torch.Tensor = cam(images, [outputs]).pre_relu[0]
    return signed.float().cpu()


def _has_several(audit: AuditConfig) -> bool:
    if audit.checkpoint is None:
        return False
    from ...training.checkpoint import read_metadata

    return read_metadata(audit.checkpoint)[0].task == "multilabel"
