"""The plan: an immutable, validated description of the image pipeline."""

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
from ..storage.local import without_file_scheme
from .cache_options import CacheOptions
from .error_policy import ErrorPolicy
from .progressive_size import SizeStep, check_steps
from .resources import WorkerResources
from .sampling import Sampling

PLAN_VERSION = 4
"""Part of every fingerprint; incremented when the batches of equal plans change."""


class BatchOptions(CheckedModel):
    """Batch options: the plan's key ``batch``."""

    size: int = Field(default=64, ge=1)
    """Global batch size, over all ranks."""


class Mix(CheckedModel):
    """MixUp (Zhang et al., ICLR 2018) or CutMix (Yun et al., ICCV 2019), applied to training batches."""

    kind: Literal["MixUp", "CutMix"]
    alpha: float = Field(default=0.2, gt=0)
    """The mixing ratio is sampled from Beta(alpha, alpha), once per batch."""
    p: float = Field(default=1.0, ge=0, le=1)
    until_epoch: int | None = Field(default=None, ge=1)
    """Number of epochs with mixing; later ones train on single images. None mixes in all."""


class BboxParams(CheckedModel):
    """Box filters: options of ``albumentations.BboxParams`` with the same meaning."""

    min_area: float = Field(default=0.0, ge=0)
    """Minimum area inside the image, in pixels."""
    min_visibility: float = Field(default=0.0, ge=0, le=1)
    """Minimum share of a box that stays inside the image and, with CutMix, uncovered."""
    min_width: float = Field(default=0.0, ge=0)
    min_height: float = Field(default=0.0, ge=0)
    max_accept_ratio: float | None = Field(default=None, ge=1)
    """Maximum ratio of the longer to the shorter side."""
    clip: bool = True
    """Clip boxes to the image when they are read; otherwise a sample with a box that exceeds the image counts as bad."""
    check_each_transform: bool = True
    """Filter boxes after every transform instead of only at the end."""


class KeypointParams(CheckedModel):
    """Keypoint options of ``albumentations.KeypointParams`` with the same meaning."""

    remove_invisible: bool = False
    """Set keypoints outside the image to 0, 0, 0; otherwise they keep their coordinates, with visibility 0."""


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-:]+:/{1,2}")
"""A URI scheme, after which ``Path`` leaves one slash; Windows drives, with a single letter, do not match."""


class Plan(CheckedModel):
    """Declarative image pipeline: index, transforms, batching, cache and error policy.

    Building a plan reads no images, and running it never modifies it. ``preprocess`` runs for every view, followed by
    ``augment`` and ``mix`` for training views or ``evaluate`` for all others; ``preprocess`` and ``evaluate`` must be
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
    """Class-balanced sampling for training views; by default every image is read once per epoch."""
    progressive_size: tuple[SizeStep, ...] | None = None
    """Smaller images in the first epochs of training views; later ones, and evaluation, have the plan's size."""
    batch: BatchOptions = BatchOptions()
    cache: CacheOptions | None = None
    """Caches images after the deterministic head of ``preprocess``; batches are unchanged, except with JPEG."""
    seed: int = Field(default=0, ge=0)
    device: Literal["cpu", "gpu"] = "cpu"
    """Device for decoding and augmentation: ``gpu`` runs all transforms that have a DALI GPU lowering."""
    decode: Literal["auto", "exact"] = "auto"
    """``auto`` decodes JPEGs at 1/2, 1/4 or 1/8 scale if the transforms downscale by at least as much; ``exact`` decodes
    at full scale. Decoding only the cropped region is exact and always enabled."""
    lowering: Literal["exact", "approximate"] = "exact"
    """``approximate`` also uses DALI GPU operators with a different algorithm than Albumentations."""
    errors: ErrorPolicy = ErrorPolicy()
    """Handling of unusable files."""
    resources: WorkerResources | None = None
    """Default CPUs and GPUs per Ray worker."""

    @field_validator("index", mode="before")
    @classmethod
    def _parse_index(cls, value: Any) -> Any:
        if not isinstance(value, str | Path):
            return value
        text = without_file_scheme(str(value)) if isinstance(value, str) else str(value)
        if (scheme := _SCHEME.match(text)) and not os.path.exists(text):  # noqa: PTH110 - returns False for names that are too long
            raise ValueError(
                f"expected a local path, got a URI that begins with {scheme[0]}; copy the index to this machine (its images may stay "
                "remote)"
            )
        return text

    @field_validator("preprocess", "augment", "evaluate", mode="before")
    @classmethod
    def _parse_policy(cls, value: Any, info: ValidationInfo) -> tuple[TransformSpec, ...]:
        return PolicyReader.from_context(info.context).read(value, str(info.field_name))

    @field_validator("progressive_size")
    @classmethod
    def _check_sizes(cls, steps: tuple[SizeStep, ...] | None) -> tuple[SizeStep, ...] | None:
        if steps is not None:
            check_steps(steps)
        return steps

    @classmethod
    def load(cls, path: Path | str, *, allow_import: Sequence[str] = ()) -> Self:
        """Load a plan from YAML; relative paths are resolved against the folder of the file.

        Args:
            path: the file.
            allow_import: modules, including submodules, that the plan may import classes and policies from. Importing runs
                their code.

        Raises:
            PlanError: the file cannot be read, a key is unknown, a value has the wrong type, or an import is not allowed.
        """
        return build_checked(
            cls,
            read_yaml(Path(path)),
            where=str(path),
            folder=Path(path).parent,
            allowed=AllowedModules.from_names(allow_import),
        )

    def dump(self) -> dict[str, Any]:
        """Return the plan as plain values for YAML; ``Plan(**plan.dump()) == plan``."""
        policies = ("preprocess", "augment", "evaluate")
        plain = self.model_dump(mode="json", exclude=set(policies))
        for name in policies:
            plain[name] = [spec.dump() for spec in getattr(self, name)]
        return plain

    def save(self, path: Path | str) -> None:
        """Save the plan as YAML."""
        write_text(Path(path), yaml.safe_dump(json.loads(json.dumps(self.dump())), sort_keys=False))

    def load_index(self) -> Index:
        """Open the plan's index; large ones are memory-mapped."""
        return Index.open(self.index)

    def fingerprint(self, index: Index | None = None) -> str:
        """Hash all options that affect batches and the content of the index, which is opened if not given.

        The path of the index, the device, the cache folder, worker resources and limits that only abort a run are
        excluded.
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
        # Defaults are left out, so that fingerprints from before these keys existed stay valid.
        if content["errors"] == ErrorPolicy().fingerprint_fields():
            del content["errors"]
        if self.mix is not None and self.mix.until_epoch is None:
            del content["mix"]["until_epoch"]
        if self.progressive_size is None:
            del content["progressive_size"]
        for name, default in (("bbox_params", BboxParams()), ("keypoint_params", KeypointParams())):
            if getattr(self, name) == default:
                del content[name]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class Normalization(CheckedModel):
    """Mean and standard deviation in ``(x / 255 - mean) / std``, per channel or for all channels."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
