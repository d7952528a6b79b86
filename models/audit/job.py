"""The Grad-CAM audit: what a model says of every image of a split, and where it looks.

A job file::

    job: gradcam
    plan: plan.yaml
    checkpoint: train/best.safetensors      # or  model: {name: resnet18}
    split: test

``lightwell audit audit.yaml --out audit`` writes records.parquet (a row per image), findings.json and
report.html.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...pipeline.errors import ModelError, PlanError
from ...pipeline.plan import Plan
from ...pipeline.view import View
from ..zoo import ModelSpec
from .records import SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa

    from ...pipeline.batch import Batch
    from ...pipeline.jobs import Context, Record


class GradCamAudit(BaseModel):
    """Explain every prediction of a split with Grad-CAM (Selvaraju et al., ICCV 2017)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: Plan
    model: ModelSpec | None = None
    """A published classifier; give this or a checkpoint."""
    checkpoint: Path | None = None
    """A model that ``lightwell train`` has written."""
    split: str | None = "test"
    """None audits all images."""
    target_layer: str | None = None
    """Dotted name of the layer whose output is mapped; None finds the last convolution."""
    training_metrics: Path | None = None
    """``metrics.jsonl`` for the training curves; None takes the one beside the checkpoint, if any."""
    class_names: Literal["imagenet"] | None = None
    """``imagenet`` names the 1,000 classes of published ImageNet models; None takes the names of the index."""
    gallery: int = Field(default=27, ge=0, le=200)
    """Images that the report shows."""
    title: str = "What the model looks at"
    credit: str = ""
    """Source and licence of the pictures, printed in the report."""
    device: str = "auto"
    """A torch device for the model; ``auto`` takes a GPU where there is one."""

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        given = [name for name in ("model", "checkpoint") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"wanted exactly one of model and checkpoint, got {' and '.join(given) or 'neither'}; "
                "give checkpoint: PATH for a model of yours, or model: {name: NAME} for a published one"
            )
        return self

    @property
    def view(self) -> View:
        """The audited split, in order, not augmented."""
        return View(split=self.split)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the files that are written."""
        return ("report.html", "findings.json")

    @property
    def schema(self) -> pa.Schema:
        """The columns of the records."""
        return SCHEMA

    def fingerprint(self) -> str:
        """Hash what decides the records: the plan, the model, its file and its layer, and the versions."""
        import hashlib
        import json

        from .findings import versions

        facts = [self.plan.fingerprint(), self._model_facts(), self.split, self.target_layer, versions()]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    @contextmanager
    def open(self) -> Iterator[Callable[[Batch], Sequence[Record]]]:
        """Load the model; yields the function that explains a batch.

        Raises:
            ModelError: no such model or layer, or it does not fit the classes of the index.
        """
        from .measure import Examiner

        index = self.plan.load_index()
        model = self._load_model(index.classes)
        labels = index.table["label"].to_numpy()
        num_classes = max(len(index.classes), int(labels.max(initial=-1)) + 1)
        with ExitStack() as stack:
            yield Examiner(model, self.target_layer, num_classes, self.device, stack)

    def _load_model(self, classes: Sequence[str]) -> Any:
        if self.checkpoint is None:
            from ..zoo import build_model

            assert self.model is not None
            return build_model(self.model)
        from ..training.checkpoint import load_model

        loaded = load_model(self.checkpoint)
        if classes and tuple(loaded.classes) != tuple(classes):
            raise ModelError(
                f"checkpoint: wanted a model of the classes {list(classes)}, "
                f"got one of {list(loaded.classes)}; "
                "audit it on an index of the data that it was trained on"
            )
        return loaded.model

    def finish(self, records: pa.Table, context: Context) -> Mapping[str, Any]:
        """Write findings.json and report.html; return the findings.

        Raises:
            PlanError: there is no record to report on.
            OutputError: a file cannot be written.
        """
        from .findings import write_findings
        from .gallery import build_gallery, choose_rows, read_pixels
        from .records import answers
        from .report import Report

        if not records.num_rows:
            raise PlanError(
                "audit: wanted at least one image that can be read, got none; see quarantine.jsonl"
            )
        classes = self.named_classes()
        findings = self._findings(records, context, classes)
        taken = answers(records)
        chosen = choose_rows(taken, self.gallery)
        keys = [str(taken.keys[row]) for rows in chosen.values() for row in rows]
        pixels = read_pixels(context.engine, self.plan, self.split, keys)
        report = Report(
            title=self.title,
            findings=findings,
            records=records,
            gallery=build_gallery(records, pixels, chosen, classes),
            quarantine=context.quarantine,
            training_metrics=self.metrics_path(),
            credit=self.credit,
        )
        report.write(context.out / "report.html")
        write_findings(findings, context.out / "findings.json")
        return findings

    def named_classes(self) -> tuple[str, ...]:
        """Name the classes by number: as the index does, or as ImageNet does."""
        if self.class_names == "imagenet":
            from ..zoo import imagenet_classes

            return imagenet_classes()
        return self.plan.load_index().classes

    def metrics_path(self) -> Path | None:
        """Find the file with the training curves: the one given, or the one beside the checkpoint."""
        if self.training_metrics or not self.checkpoint:
            return self.training_metrics
        beside = self.checkpoint.parent / "metrics.jsonl"
        return beside if beside.is_file() else None

    def _findings(self, records: pa.Table, context: Context, classes: Sequence[str]) -> dict[str, Any]:
        from collections import Counter

        from .findings import describe, versions
        from .measure import even_border_mass

        size = [records["map_height"][0].as_py(), records["map_width"][0].as_py()]
        findings = describe(records, classes)
        findings["border_mass"]["even_map"] = even_border_mass(*size)
        return findings | {
            "title": self.title,
            "split": self.split,
            "map_size": size,
            "target_layer": records["target_layer"][0].as_py(),
            "counts": dict(context.counts),
            "num_quarantined": len({entry["key"] for entry in context.quarantine}),
            "quarantine_steps": dict(Counter(str(entry["step"]) for entry in context.quarantine)),
            "model": self._model_facts(),
            "plan_fingerprint": self.plan.fingerprint(),
            "seed": self.plan.seed,
            "credit": self.credit,
            "versions": versions(),
        }

    def _model_facts(self) -> dict[str, Any]:
        """Name the model by what it is, not by where its files lie."""
        if self.checkpoint is not None:
            from ..training.checkpoint import read_description

            description, _ = read_description(self.checkpoint)
            return {
                "name": description.model.name,
                "weights": self.checkpoint.name,
                "sha256": digest_of(self.checkpoint),
                "epochs": len(description.history),
                "trained_on_plan": description.plan_fingerprint,
            }
        assert self.model is not None
        file = Path(self.model.weights)
        if not file.is_file():
            return {"name": self.model.name, "weights": self.model.weights}
        return {"name": self.model.name, "weights": file.name, "sha256": digest_of(file)}


def digest_of(path: Path) -> str:
    """Hash a file; the first 16 hex digits of its SHA-256."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
