"""Keys of the job file of a Grad-CAM audit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ....pipeline.config.checked_model import CheckedModel
from ....pipeline.config.imports import AllowedModules
from ....pipeline.config.path_fields import MayBePath
from ....pipeline.errors import did_you_mean
from ....pipeline.plan.plan import Plan
from ....pipeline.plan.view import View
from ...explain.attribution.names import Method, check_captum
from ...explain.cam.registry import DEFAULT, check_method
from ...zoo.build import ModelSpec
from .classes import IMAGENET, INDEX

PREDICTED, LABEL, SECOND, ALL = "predicted", "label", "second", "all"
"""Target classes by role."""


class AuditConfig(CheckedModel):
    """Data, model and report of an audit."""

    plan: Plan
    model: ModelSpec | None = None
    """A classifier with pretrained weights; give this or a checkpoint."""
    checkpoint: Path | None = None
    """A checkpoint of ``lightwell train``."""
    split: str | None = "test"
    """None audits all images."""
    method: str = DEFAULT
    """How maps are computed: one of ``explain.cam.registry.METHODS``, or ``module:function``."""
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
    explain: str | tuple[str, ...] = PREDICTED
    """Target classes of the maps, one or several of ``predicted``, ``label``, ``second``, ``all`` and names of classes; the
    report shows the first, and the prediction where that is ``all``."""
    trust_images: int = Field(default=32, ge=0, le=1000)
    """Images on which the maps themselves are checked; 0 checks none, and there is no verdict on them."""
    interventions: int = Field(default=24, ge=0, le=1000)
    """Pairs of images on which each suspect region is removed, and pasted, to confirm or refute it; 0 tests none."""
    gallery: int = Field(default=27, ge=0, le=200)
    """Maximum number of images in the report."""
    second_opinions: tuple[Method, ...] = ()
    """Attribution methods of Captum that explain the images of the gallery too: ``integrated_gradients``, ``gradient_shap``,
    ``lime``, ``kernel_shap``, ``occlusion``. Each takes as long as some hundred images; needs the extra ``explain``."""
    overlays: str | None = None
    """Name of a folder, below the output folder, for a PNG of each original picture with its map, and the map as .npy."""
    groups: tuple[str, ...] = ()
    """Columns of the indexed table, such as camera and site, by which images are searched for slices with more errors."""
    dataset_audit: Path | None = None
    """``records.parquet`` of ``lightwell inspect`` on the same index: its measures of files and images are searched for slices and
    describe findings, and the accuracy is restated without images that the training split has, too."""
    calibrate: bool = False
    """Plants marks of several sizes in images of the split, lets a probe of the network learn them, and reports the smallest that
    the audit would have caught. Takes some minutes."""
    title: str = "Grad-CAM audit"
    credit: str = ""
    """Source and licence of the images, shown in the report."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """``bfloat16`` computes layers in mixed precision: faster on GPUs and on CPUs with bfloat16 instructions, with maps that
    differ by some percent of their largest value."""
    device: str = "auto"
    """torch device of the model; ``auto`` uses a GPU if available."""

    @field_validator("method")
    @classmethod
    def _check_method(cls, name: str, info: ValidationInfo) -> str:
        check_method(name, None if info.context is None else AllowedModules.from_context(info.context))
        return name

    @field_validator("second_opinions")
    @classmethod
    def _check_captum(cls, methods: tuple[Method, ...]) -> tuple[Method, ...]:
        if methods:
            check_captum()
        return tuple(dict.fromkeys(methods))

    @field_validator("overlays")
    @classmethod
    def _check_overlays(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(
                f"overlays: expected the name of a folder below the output folder, of letters, digits, '_', '.' and '-', got "
                f"{name!r}; write overlays: overlays"
            )
        return name

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
        if not isinstance(self.explain, str) and len(set(self.explain)) != max(1, len(self.explain)):
            raise ValueError(
                f"explain: expected one or several different target classes, got {list(self.explain)}; "
                f"write explain: {PREDICTED}"
            )
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        """The target classes of the maps, that of the report first."""
        given = (self.explain,) if isinstance(self.explain, str) else self.explain
        return tuple(dict.fromkeys((PREDICTED, *given))) if given[:1] == (ALL,) else given

    @property
    def view(self) -> View:
        """View of the audited split, in order and without augmentation."""
        return View(split=self.split)

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
