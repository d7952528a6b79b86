"""The network whose features are wanted: one of the zoo, or a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from ...pipeline.config.checked_model import CheckedModel
from ...pipeline.errors import ModelError
from ...pipeline.jobs.fingerprint import file_digest
from ...pipeline.text import first_few
from ..zoo.build import ModelSpec

if TYPE_CHECKING:
    from torch import nn


class ModelChoice(CheckedModel):
    """Keys of a job file that name a trained network."""

    model: ModelSpec | None = None
    """A network with pretrained weights; give this or a checkpoint."""
    checkpoint: Path | None = None
    """A checkpoint of ``lightwell train``."""
    untrained: Literal["refuse", "allow"] = "refuse"
    """``allow`` accepts randomly initialised layers before the head."""

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        given = [name for name in ("model", "checkpoint") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of model and checkpoint, got {' and '.join(given) or 'neither'}; "
                "give checkpoint: PATH for your own model, or model: {name: NAME} for a pretrained one"
            )
        return self

    def load(self) -> nn.Module:
        """Load the network, in eval mode on the CPU.

        Raises:
            ModelError: no such network, the checkpoint cannot be read, or layers before the head are untrained.
        """
        from ..training.checkpoint import load_model
        from ..zoo.build import build_model, weights_report
        from ..zoo.heads import classifier_layers

        if self.checkpoint is not None:
            self.spec()
            return load_model(self.checkpoint).model
        assert self.model is not None
        model = build_model(self.model, warn=False)
        heads = classifier_layers(model)
        random = [name for name in weights_report(model).untrained if not _is_in(heads, name)]
        if random and self.untrained == "refuse":
            raise ModelError(
                f"model: expected trained weights, got randomly initialised layers {first_few(random)}; choose weights, or "
                "write 'untrained: allow'"
            )
        return model

    def spec(self) -> ModelSpec:
        """Return the network's name and options; of a checkpoint without its weights.

        Raises:
            ModelError: the checkpoint cannot be read.
        """
        if self.checkpoint is None:
            assert self.model is not None
            return self.model
        from ..training.checkpoint import read_metadata, untrained_spec

        found = read_metadata(self.checkpoint)[0].model
        if not isinstance(found, ModelSpec):
            raise ModelError(
                f"checkpoint: expected a classifier, got a segmentation network in {str(self.checkpoint)!r}; choose another"
            )
        return untrained_spec(found)

    def facts(self) -> dict[str, Any]:
        """Return what determines the features, as JSON values without paths.

        Raises:
            ModelError: the weights cannot be found.
        """
        from ..zoo.load_checkpoint import is_path, resolve_weights

        spec = self.spec()
        facts = spec.model_dump(mode="json", exclude={"weights"})
        if self.checkpoint is not None:
            return {**facts, "sha256": file_digest(self.checkpoint)}
        if is_path(spec.weights) or spec.weights.startswith("package:"):
            return {**facts, "sha256": file_digest(resolve_weights(spec.weights))}
        return {**facts, "weights": spec.weights}


def _is_in(heads: tuple[str, ...], name: str) -> bool:
    """Return whether a layer is a head, or a part that holds nothing else."""
    return any(name == head or head.startswith(f"{name}.") or name.startswith(f"{head}.") for head in heads)
