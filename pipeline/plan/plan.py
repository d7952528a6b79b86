"""The plan: a frozen value that says what happens to images, checked before anything moves."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationInfo, field_validator

from ..atomic_io import write_text
from ..config.checked_model import CheckedModel, build_checked
from ..config.imports import AllowedModules
from ..config.safe_yaml import read_yaml
from ..index.index import Index
from ..policy.parse import PolicyReader
from ..policy.spec import TransformSpec
from ..storage.store import without_file_scheme
from .cache_options import CacheOptions
from .error_policy import ErrorPolicy
from .resources import WorkerResources
from .sampling import Sampling

PLAN_VERSION = 4
"""Part of every fingerprint; raised when equal plans would yield other batches than before."""


class BatchOptions(CheckedModel):
    """How samples are put together."""

    size: int = Field(default=64, ge=1)
    """Of all ranks together."""


class Mix(CheckedModel):
    """MixUp (Zhang et al., ICLR 2018) or CutMix (Yun et al., ICCV 2019) over a finished training batch."""

    kind: Literal["MixUp", "CutMix"]
    alpha: float = Field(default=0.2, gt=0)
    """The share is drawn from Beta(alpha, alpha), once for a batch."""
    p: float = Field(default=1.0, ge=0, le=1)


class BboxParams(CheckedModel):
    """Which boxes stay: options of ``albumentations.BboxParams``, where they mean the same."""

    min_area: float = Field(default=0.0, ge=0)
    """Least area inside the picture, in pixels."""
    min_visibility: float = Field(default=0.0, ge=0, le=1)
    """Least part of a box that stays inside the picture, and with CutMix uncovered."""
    min_width: float = Field(default=0.0, ge=0)
    min_height: float = Field(default=0.0, ge=0)
    max_accept_ratio: float | None = Field(default=None, ge=1)
    """Largest ratio of the longer side to the shorter."""
    clip: bool = True
    """Clip boxes to the picture when they are read; without it a box that reaches outside costs its sample."""
    check_each_transform: bool = True
    """Drop boxes behind every transform, and not at the end only."""


class KeypointParams(CheckedModel):
    """What becomes of keypoints: options of ``albumentations.KeypointParams``, where they mean the same."""

    remove_invisible: bool = False
    """Make keypoints that leave the picture 0, 0, 0; without it they keep their place, with visibility 0."""


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-:]+:/{1,2}")
"""Of a URI, which ``Path`` writes with one slash; a drive of Windows has one letter."""


class Plan(CheckedModel):
    """What happens to the images of an index before a model sees them.

    Building a plan reads no image; running it never changes it. ``preprocess`` runs for every view, then
    ``augment`` and ``mix`` for training views or ``evaluate`` for all others; what does not augment must be
    deterministic. A trailing ``Normalize`` runs last, in every view, in one pass into the batch.
    """

    index: Path
    preprocess: tuple[TransformSpec, ...] = ()
    augment: tuple[TransformSpec, ...] = ()
    evaluate: tuple[TransformSpec, ...] = ()
    mix: Mix | None = None
    bbox_params: BboxParams = BboxParams()
    keypoint_params: KeypointParams = KeypointParams()
    sampling: Sampling | None = None
    """How often training views show each class; None shows every image once an epoch."""
    batch: BatchOptions = BatchOptions()
    cache: CacheOptions | None = None
    """Keeps pixels behind the deterministic beginning of ``preprocess``; changes no batch, unless as JPEG."""
    seed: int = Field(default=0, ge=0)
    device: Literal["cpu", "gpu"] = "cpu"
    """Where images are decoded and augmented: ``gpu`` takes everything that is lowered to DALI's GPU operators."""
    decode: Literal["auto", "exact"] = "auto"
    """``auto`` decodes a JPEG at 1/2, 1/4 or 1/8 of its size where what follows shrinks it at least as much;
    ``exact`` never does. Cutting out only what a crop keeps is exact and done either way."""
    lowering: Literal["exact", "approximate"] = "exact"
    """``approximate`` also takes DALI operators that follow another law than Albumentations, on a GPU."""

    errors: ErrorPolicy = ErrorPolicy()
    """What is done about files that cannot be used."""
    resources: WorkerResources | None = None
    """What each worker of a cluster holds, where the command line does not say."""

    @field_validator("index", mode="before")
    @classmethod
    def _parse_index(cls, value: Any) -> Any:
        if not isinstance(value, str | Path):
            return value
        text = without_file_scheme(str(value)) if isinstance(value, str) else str(value)
        if (scheme := _SCHEME.match(text)) and not os.path.exists(text):  # noqa: PTH110 - no error for names that are too long
            raise ValueError(
                f"expected a path of this machine, got a URI that begins with {scheme[0]}; copy the index here (pictures that it "
                "lists may stay where they are)"
            )
        return text

    @field_validator("preprocess", "augment", "evaluate", mode="before")
    @classmethod
    def _parse_policy(cls, value: Any, info: ValidationInfo) -> tuple[TransformSpec, ...]:
        return PolicyReader.from_context(info.context).read(value, str(info.field_name))

    @classmethod
    def load(cls, path: Path | str, *, allow_import: Sequence[str] = ()) -> Self:
        """Read a plan from YAML; relative paths count from the file's folder.

        Args:
            path: the file.
            allow_import: modules that the plan may import classes and policies from, each with its submodules. Importing
                runs their code.

        Raises:
            PlanError: the file cannot be read, a key is unknown, a value is of another type, or the plan names something
                that would have to be imported without permission.
        """
        return build_checked(
            cls,
            read_yaml(Path(path)),
            where=str(path),
            folder=Path(path).parent,
            allowed=AllowedModules.from_names(allow_import),
        )

    def dump(self) -> dict[str, Any]:
        """Return the plan in its YAML form; ``Plan(**plan.dump()) == plan``."""
        policies = ("preprocess", "augment", "evaluate")
        plain = self.model_dump(mode="json", exclude=set(policies))
        for name in policies:
            plain[name] = [spec.dump() for spec in getattr(self, name)]
        return plain

    def save(self, path: Path | str) -> None:
        """Write the plan as YAML."""
        write_text(Path(path), yaml.safe_dump(json.loads(json.dumps(self.dump())), sort_keys=False))

    def load_index(self) -> Index:
        """Read the plan's index; a large one is mapped into memory."""
        return Index.open(self.index)

    def fingerprint(self, index: Index | None = None) -> str:
        """Hash all that decides what the batches hold, the index's content included; reads the index if not given.

        The index's path, the device, the cache's place, what workers hold and limits that only stop a run are left out:
        moving a data set or a machine, or bearing more bad files, is not another plan.
        """
        content = {
            **self.dump(),
            "index": (index or self.load_index()).fingerprint(),
            "version": PLAN_VERSION,
        }
        del content["device"], content["cache"], content["resources"]
        if self.cache is not None and self.cache.fingerprint_fields():
            content["cache"] = self.cache.fingerprint_fields()
        content["errors"] = self.errors.fingerprint_fields()
        # Plans from before these keys were there keep their fingerprint.
        if content["errors"] == ErrorPolicy().fingerprint_fields():
            del content["errors"]
        for name, default in (("bbox_params", BboxParams()), ("keypoint_params", KeypointParams())):
            if getattr(self, name) == default:
                del content[name]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class Normalization(CheckedModel):
    """Constants of ``(x / 255 - mean) / std``: one for each channel, or one for all."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
