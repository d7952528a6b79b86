"""The network whose features a dataset audit checks: how it sees the images, and the stage that computes the features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ....pipeline.errors import PlanError
from ....pipeline.plan.plan import Plan
from ....pipeline.text import first_few
from ...features.embed import STAGE, Embed, FeatureStage
from ..gradcam.classes import normalize_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa

    from ...zoo.build import ModelSpec
    from .job import DatasetAudit

FEATURES = STAGE


def feature_stages(audit: DatasetAudit) -> tuple[FeatureStage, ...]:
    """Return the stage of the features; none without a network.

    Raises:
        ModelError: no such network, the checkpoint cannot be read, or no preprocessing is known for it.
        PlanError: the preprocessing of the checkpoint cannot be used.
    """
    if not audit.has_network:
        return ()
    plan = feature_plan(audit.plan, audit.model, audit.checkpoint)
    return (
        FeatureStage(Embed(plan=plan, model=audit.model, checkpoint=audit.checkpoint, split=audit.split)),
    )


def feature_plan(plan: Plan, model: ModelSpec | None, checkpoint: Path | None = None) -> Plan:
    """Return a plan of the same index with the network's preprocessing, unless the plan has one of its own.

    Args:
        plan: of the audit.
        model: a network, whose weights determine the preprocessing.
        checkpoint: of a training, in its place, with the preprocessing that it was evaluated with.

    Raises:
        ModelError: no such network, the checkpoint cannot be read, or no preprocessing is known for it.
        PlanError: the preprocessing of the checkpoint cannot be used.
    """
    if plan.preprocess or plan.evaluate:
        return plan
    if checkpoint is not None:
        return _trained_plan(plan, checkpoint)
    from ...zoo.data_config import data_config
    from ...zoo.preprocessing import expected_policy

    assert model is not None
    expected = expected_policy(data_config(model))
    policy = {name: expected[name] for name in ("preprocess", "evaluate")}
    return Plan.model_validate({"index": plan.index, "errors": plan.errors, "seed": plan.seed, **policy})


def network_facts(audit: DatasetAudit, domain: pa.Table | None) -> dict[str, Any] | None:
    """Return the name of the network, and notes on it as sentences; None without one.

    Args:
        audit: with the network.
        domain: records of the stage ``domain``.

    Raises:
        ModelError: the checkpoint cannot be read.
    """
    if not audit.has_network:
        return None
    notes = []
    if domain is not None and not domain.num_rows:
        notes.append(
            "It has no batch normalization, whose statistics of the training data would tell how far the images are from these."
        )
    if audit.model is not None:
        return {"name": audit.model.name, "notes": notes}
    from ...training.checkpoint import read_metadata

    assert audit.checkpoint is not None
    metadata, _ = read_metadata(audit.checkpoint)
    notes += class_notes(audit.plan.load_index().classes, metadata.classes)
    return {"name": metadata.model.name, "notes": notes}


def class_notes(of_index: Sequence[str], of_checkpoint: Sequence[str]) -> list[str]:
    """Return sentences about classes that only an index or only a checkpoint has; names match as in audits of models."""
    known, given = ({normalize_name(name) for name in names} for names in (of_checkpoint, of_index))
    new = [name for name in of_index if normalize_name(name) not in known]
    absent = [name for name in of_checkpoint if normalize_name(name) not in given]
    notes = []
    if new:
        notes.append(
            f"The checkpoint was not trained on {len(new):,} of the {len(of_index):,} classes of the index ({first_few(new)}): its "
            "features may not tell them apart, and suspected labels among them are less certain."
        )
    if absent:
        notes.append(
            f"The index lacks {len(absent):,} of the checkpoint's {len(of_checkpoint):,} classes ({first_few(absent)})."
        )
    return notes


def _trained_plan(plan: Plan, checkpoint: Path) -> Plan:
    from ...training.checkpoint import read_metadata

    saved = read_metadata(checkpoint)[0].plan
    if saved is None:
        raise PlanError(
            f"checkpoint: expected one that holds its preprocessing, got the older {str(checkpoint)!r}; give the plan of its "
            "training with --plan, or preprocess in the plan of the job"
        )
    try:
        return saved.to_plan(plan.index, errors=plan.errors.model_dump(mode="json"), seed=plan.seed)
    except PlanError as error:
        raise PlanError(
            f"checkpoint: expected preprocessing that can be built from {str(checkpoint)!r}, got an error ({error}); give the plan "
            "of its training with --plan, or preprocess in the plan of the job"
        ) from error
