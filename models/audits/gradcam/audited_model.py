"""The model of an audit: weights, classes, and the facts that the report shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....pipeline.errors import ModelError
from ....pipeline.jobs.fingerprint import file_digest
from ...zoo.class_names import pretrained_class_names
from .classes import IMAGENET, INDEX, ClassMatch, OutputNames, match_classes, read_names

if TYPE_CHECKING:
    from .config import AuditConfig


def load_audited_model(audit: AuditConfig) -> Any:
    """Load the model.

    Raises:
        ModelError: no such model, or the checkpoint cannot be read.
    """
    if audit.checkpoint is None:
        from ...zoo.build import build_model

        assert audit.model is not None
        return build_model(audit.model, warn=False)
    from ...training.checkpoint import load_model, read_metadata

    if (task := read_metadata(audit.checkpoint)[0].task) == "segment":
        raise ModelError(
            f"checkpoint: expected one of a classifier, got one of the task {task!r} in {audit.checkpoint}; give best.safetensors "
            "of a job classify or multilabel"
        )
    return load_model(audit.checkpoint).model


def match_audited_classes(audit: AuditConfig, num_outputs: int) -> ClassMatch:
    """Match the classes of the index with the outputs of the model, by name.

    Raises:
        ModelError: the number of names differs from the number of outputs.
        PlanError: ``class_map`` has an unknown class.
    """
    index = audit.plan.load_index()
    num_labels = int(index.table["label"].to_numpy().max(initial=-1)) + 1
    return match_classes(index.classes, num_labels, output_names(audit), num_outputs, audit.class_map)


def output_names(audit: AuditConfig) -> OutputNames:
    """Return the names of the model's outputs, from the job, the checkpoint or the pretrained weights.

    Raises:
        PlanError: the file with names cannot be read.
        ModelError: the checkpoint cannot be read.
    """
    names = audit.class_names
    if names == IMAGENET:
        from ...zoo.build import imagenet_classes

        return OutputNames(imagenet_classes(), "ImageNet (class_names)")
    if names == INDEX:
        return OutputNames((), "the index (class_names)", as_index=True)
    if isinstance(names, str):
        return OutputNames(read_names(Path(names)), Path(names).name)
    if names is not None:
        return OutputNames(names, "class_names of the job")
    if audit.checkpoint is not None:
        from ...training.checkpoint import read_metadata

        return OutputNames(read_metadata(audit.checkpoint)[0].classes, "the checkpoint")
    assert audit.model is not None
    known = pretrained_class_names(audit.model)
    return OutputNames(known, "the pretrained weights") if known else OutputNames()


def model_facts(audit: AuditConfig) -> dict[str, Any]:
    """Return properties of the model that do not depend on paths."""
    if audit.checkpoint is not None:
        from ...training.checkpoint import read_metadata

        metadata, _ = read_metadata(audit.checkpoint)
        return {
            "name": metadata.model.name,
            "weights": audit.checkpoint.name,
            "sha256": file_digest(audit.checkpoint),
            "epochs": len(metadata.history),
            "trained_on_plan": metadata.plan_fingerprint,
        }
    assert audit.model is not None
    file = Path(audit.model.weights)
    if not file.is_file():
        return {"name": audit.model.name, "weights": audit.model.weights}
    return {"name": audit.model.name, "weights": file.name, "sha256": file_digest(file)}
