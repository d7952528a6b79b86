"""Grad-CAM audit job: predictions and class activation maps of a model for every image of a split.

A job file::

    job: gradcam
    plan: plan.yaml
    checkpoint: train/best.safetensors      # or  model: {name: resnet18}
    split: test

``lightwell audit audit.yaml --out audit`` writes records.parquet (one row per image), findings.json and report.html.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ....pipeline.config.checked_model import CheckedModel
from ....pipeline.config.path_fields import MayBePath
from ....pipeline.errors import ModelError, PlanError, did_you_mean
from ....pipeline.plan.plan import Plan
from ....pipeline.plan.view import View
from ...zoo.build import ModelSpec
from ...zoo.class_names import pretrained_class_names
from .classes import IMAGENET, INDEX, ClassMatch, OutputNames, match_classes, read_names
from .records import SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa

    from ....pipeline.batch.batch import Batch
    from ....pipeline.jobs.contracts import Context, Record


_log = logging.getLogger(__name__)


class GradCamAudit(CheckedModel):
    """Explain every prediction of a split with Grad-CAM (Selvaraju et al., ICCV 2017)."""

    plan: Plan
    model: ModelSpec | None = None
    """A classifier with pretrained weights; give this or a checkpoint."""
    checkpoint: Path | None = None
    """A checkpoint of ``lightwell train``."""
    split: str | None = "test"
    """None audits all images."""
    target_layer: str | None = None
    """Dotted name of the target layer; None uses the last layer with a spatial map."""
    training_metrics: Path | None = None
    """``metrics.jsonl`` for the training curves; None uses the one next to the checkpoint, if any."""
    class_names: Annotated[str | tuple[str, ...] | None, MayBePath((".txt", ".json"))] = None
    """Names of the model's outputs: a list, a file (JSON list, or text with one name per line), ``imagenet`` for the
    1,000 classes of ImageNet models, or ``index`` for outputs in the order of the index's classes. None uses the names
    stored with the checkpoint or the pretrained weights."""
    class_map: dict[str, str | int] | None = None
    """Maps classes of the index to names or numbers of outputs, where the names differ."""
    untrained: Literal["refuse", "allow"] = "refuse"
    """``allow`` audits a model with randomly initialised layers, whose predictions are meaningless."""
    explain: str = "predicted"
    """Target class of the maps: ``predicted``, ``label`` or the name of a class."""
    gallery: int = Field(default=27, ge=0, le=200)
    """Maximum number of images in the report."""
    title: str = "Grad-CAM audit"
    credit: str = ""
    """Source and licence of the images, shown in the report."""
    device: str = "auto"
    """torch device of the model; ``auto`` uses a GPU if available."""

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        given = [name for name in ("model", "checkpoint") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of model and checkpoint, got {' and '.join(given) or 'neither'}; "
                "give checkpoint: PATH for your own model, or model: {name: NAME} for a pretrained one"
            )
        words = (IMAGENET, INDEX)
        names = self.class_names
        if isinstance(names, str) and names not in words and not names.endswith((".txt", ".json")):
            raise ValueError(
                f"class_names: expected a list of names, a .txt or .json file, {' or '.join(words)}, got {names!r}; "
                f"{did_you_mean(names, words) or 'correct it'}"
            )
        return self

    @property
    def view(self) -> View:
        """View of the audited split, in order and without augmentation."""
        return View(split=self.split)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output files."""
        return ("report.html", "findings.json")

    @property
    def schema(self) -> pa.Schema:
        """Schema of the records."""
        return SCHEMA

    def fingerprint(self) -> str:
        """Hash what determines the records: plan, model, classes, target of the maps, and versions.

        Title, credit, gallery and other keys that affect only the report are excluded.
        """
        import hashlib
        import json

        from .findings import FINDINGS_VERSION, versions

        outputs = self.output_names()
        facts = [
            FINDINGS_VERSION,
            self.plan.fingerprint(),
            self._model_facts(),
            None if self.model is None else self.model.model_dump(mode="json", exclude={"weights"}),
            [outputs.names, outputs.as_index, self.class_map, self.plan.load_index().classes],
            [self.split, self.target_layer, self.explain, self.untrained],
            versions(),
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    @contextmanager
    def open(self) -> Iterator[Callable[[Batch], Sequence[Record]]]:
        """Load the model; yields a function that returns the records of a batch.

        Raises:
            ModelError: no such model, layer or device, or layers of the model are untrained.
            PlanError: ``class_map`` or ``explain`` has an unknown class.
        """
        from ...zoo.heads import num_outputs
        from ...zoo.weights_report import weights_report
        from .measure import MAX_LOGITS, CamExplainer

        for note in self.plan_warnings():
            _log.warning("%s", note)
        model = self._load_model()
        report = weights_report(model)
        untrained = report.untrained if self.checkpoint is None or report.source != "none" else ()
        if untrained and self.untrained == "refuse":
            few = ", ".join(untrained[:3]) + (f" and {len(untrained) - 3} more" if len(untrained) > 3 else "")
            raise ModelError(
                f"model: expected trained weights, got randomly initialised layers {few}, whose predictions are "
                "meaningless; train the model and audit its checkpoint, or write 'untrained: allow'"
            )
        count = num_outputs(model)
        match = self.match_classes(count)
        facts = {
            "num_outputs": count,
            "outputs": list(match.outputs) if count <= MAX_LOGITS else None,
            "untrained": list(untrained),
            "weights": report.as_dict()
            if report.source not in ("none", "unknown")
            else {"source": report.source},
        }
        with ExitStack() as stack:
            yield CamExplainer(
                model,
                self.target_layer,
                match,
                stack,
                explain=self.explain,
                device=self.device,
                facts=facts,
            )

    def _load_model(self) -> Any:
        if self.checkpoint is None:
            from ...zoo.build import build_model

            assert self.model is not None
            return build_model(self.model, warn=False)
        from ...training.checkpoint import load_model

        return load_model(self.checkpoint).model

    def match_classes(self, num_outputs: int) -> ClassMatch:
        """Match the classes of the index with the outputs of the model, by name.

        Raises:
            ModelError: the number of names differs from the number of outputs.
            PlanError: ``class_map`` has an unknown class.
        """
        index = self.plan.load_index()
        num_labels = int(index.table["label"].to_numpy().max(initial=-1)) + 1
        return match_classes(index.classes, num_labels, self.output_names(), num_outputs, self.class_map)

    def output_names(self) -> OutputNames:
        """Return the names of the model's outputs, from the job, the checkpoint or the pretrained weights.

        Raises:
            PlanError: the file with names cannot be read.
            ModelError: the checkpoint cannot be read.
        """
        if self.class_names == IMAGENET:
            from ...zoo.build import imagenet_classes

            return OutputNames(imagenet_classes(), "ImageNet (class_names)")
        if self.class_names == INDEX:
            return OutputNames((), "the index (class_names)", as_index=True)
        if isinstance(self.class_names, str):
            return OutputNames(read_names(Path(self.class_names)), Path(self.class_names).name)
        if self.class_names is not None:
            return OutputNames(self.class_names, "class_names of the job")
        if self.checkpoint is not None:
            from ...training.checkpoint import read_metadata

            return OutputNames(read_metadata(self.checkpoint)[0].classes, "the checkpoint")
        assert self.model is not None
        names = pretrained_class_names(self.model)
        return OutputNames(names, "the pretrained weights") if names else OutputNames()

    def finish(self, records: pa.Table, context: Context) -> Mapping[str, Any]:
        """Write findings.json and report.html; return the findings.

        Raises:
            PlanError: there are no records.
            OutputError: a file cannot be written.
        """
        import json

        from .findings import write_findings
        from .gallery import build_gallery, choose_rows, read_pictures
        from .records import read_predictions
        from .report import Report

        if not records.num_rows:
            raise PlanError("audit: expected at least one readable image, got none; see quarantine.jsonl")
        facts = json.loads(records["model"][0].as_py())
        match = self.match_classes(int(facts["num_outputs"]))
        findings = self._findings(records, context, match, facts)
        for note in findings["notes"]:
            if note in self._data_sentences():
                continue  # already logged in open()
            void = match.how == "none" and note in match.notes
            _log.log(logging.ERROR if void else logging.WARNING, "%s", note)
        preds = read_predictions(records)
        chosen = choose_rows(preds, self.gallery)
        keys = [str(preds.keys[row]) for rows in chosen.values() for row in rows]
        pictures = read_pictures(context.engine, self.plan, self.split, keys)
        report = Report(
            title=self.title,
            findings=findings,
            records=records,
            gallery=build_gallery(records, pictures, chosen, match.names),
            quarantine=context.quarantine,
            names=match.names,
            training_metrics=self.metrics_path(),
            credit=self.credit,
        )
        report.write(context.out / "report.html")
        write_findings(findings, context.out / "findings.json")
        return findings

    def metrics_path(self) -> Path | None:
        """Return the file with training metrics: the one given, or the one next to the checkpoint."""
        if self.training_metrics or not self.checkpoint:
            return self.training_metrics
        sibling = self.checkpoint.parent / "metrics.jsonl"
        return sibling if sibling.is_file() else None

    def _findings(
        self, records: pa.Table, context: Context, match: ClassMatch, facts: Mapping[str, Any]
    ) -> dict[str, Any]:
        from collections import Counter

        from .findings import compute_findings, versions
        from .measure import uniform_border_mass

        size = [records["map_height"][0].as_py(), records["map_width"][0].as_py()]
        image = [records["image_height"][0].as_py(), records["image_width"][0].as_py()]
        findings = compute_findings(records, match.names, match.num_index)
        findings["border_mass"]["even_map"] = uniform_border_mass(*size, *image)
        return findings | {
            "title": self.title,
            "split": self.split,
            "map_size": size,
            "image_size": image,
            "preprocessing": self._preprocessing(),
            "index": self._index_facts(),
            "target_layer": records["target_layer"][0].as_py(),
            "explain": self.explain,
            "model_classes": {
                "num_outputs": facts["num_outputs"],
                "names_from": match.source,
                "matched_by": match.how,
                "class_map": self.class_map,
                "not_in_model": list(match.unknown),
            },
            "notes": self._notes(findings, match, facts),
            "counts": dict(context.counts),
            "num_quarantined": len({entry["key"] for entry in context.quarantine}),
            "quarantine_steps": dict(Counter(str(entry["step"]) for entry in context.quarantine)),
            "model": self._model_facts()
            | {"num_outputs": facts["num_outputs"], "untrained": facts["untrained"]},
            "weights_report": facts["weights"],
            "plan_fingerprint": self.plan.fingerprint(),
            "seed": self.plan.seed,
            "credit": self.credit,
            "versions": versions(),
        }

    def _notes(self, findings: Mapping[str, Any], match: ClassMatch, facts: Mapping[str, Any]) -> list[str]:
        """List warnings to show before the results."""
        notes = []
        if facts["untrained"]:
            notes.append(
                f"the model is not trained: {', '.join(facts['untrained'][:3])} have random values; its predictions and maps "
                "are meaningless"
            )
        if self.plan.load_index().is_multi_label:
            notes.append(
                "images of this index may have several classes: accuracy is not measured, and maps explain the predicted "
                "class"
            )
        notes += [*match.notes, *self._data_sentences()]
        if facts.get("target_layer_note"):
            notes.append(facts["target_layer_note"])
        if findings["num_without_map"]:
            notes.append(
                f"{findings['num_without_map']:,} images have no map, because its values are not finite"
            )
        if findings["num_unknown_class"] and match.how != "none":
            notes.append(
                f"{findings['num_unknown_class']:,} images have a class that the model does not have; they are excluded "
                "from the accuracy"
            )
        return notes

    def _data_sentences(self) -> list[str]:
        return [note.partition("\n")[0] for note in self.plan_warnings()]

    def plan_warnings(self) -> tuple[str, ...]:
        """Return warnings where the plan's preprocessing differs from that of the weights, with YAML lines that fix it.

        Raises:
            ModelError: no such model, or the checkpoint cannot be read.
        """
        from ...zoo.plan_checks import data_warnings, trained_plan_warnings

        if self.model is not None:
            return data_warnings(self.model, self.plan)
        from ...training.checkpoint import read_metadata

        assert self.checkpoint is not None
        return trained_plan_warnings(read_metadata(self.checkpoint)[0].job, self.plan)

    def _preprocessing(self) -> list[str]:
        """List the preprocessing steps of an audited image."""
        from ....pipeline.compiler.program import Program
        from ....pipeline.tools.explain import explain

        plan = self.plan.model_copy(update={"augment": ()})
        steps = explain(Program.compile(plan), None)
        return [f"{step.name} {step.options}".strip() for step in steps if step.name not in ("Read", "Draw")]

    def _index_facts(self) -> dict[str, Any]:
        """Return name, date, size and fingerprint of the index."""
        from datetime import UTC, datetime

        index, path = self.plan.load_index(), self.plan.index
        date = datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
        return {"name": path.name, "date": date, "rows": len(index), "fingerprint": index.fingerprint()}

    def _model_facts(self) -> dict[str, Any]:
        """Return properties of the model that do not depend on paths."""
        if self.checkpoint is not None:
            from ...training.checkpoint import read_metadata

            metadata, _ = read_metadata(self.checkpoint)
            return {
                "name": metadata.model.name,
                "weights": self.checkpoint.name,
                "sha256": file_digest(self.checkpoint),
                "epochs": len(metadata.history),
                "trained_on_plan": metadata.plan_fingerprint,
            }
        assert self.model is not None
        file = Path(self.model.weights)
        if not file.is_file():
            return {"name": self.model.name, "weights": self.model.weights}
        return {"name": self.model.name, "weights": file.name, "sha256": file_digest(file)}


def file_digest(path: Path) -> str:
    """Return the first 16 hex digits of a file's SHA-256."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
