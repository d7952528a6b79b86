"""The plan: a frozen value that says what happens to images, checked before anything moves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .cache.options import Caching
from .dataset.index import Index
from .error_rules import ErrorRules
from .errors import PlanError, nearest
from .order.sampling import Sampling
from .path_fields import resolve_paths
from .policy.transforms import TransformSpec, parse_policy
from .resources import WorkerResources

M = TypeVar("M", bound=BaseModel)

PLAN_VERSION = 2
"""Part of every fingerprint; raised when equal plans would yield other batches than before."""


class Batching(BaseModel):
    """How samples are put together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(default=64, ge=1)
    """Of all ranks together."""


class Mix(BaseModel):
    """MixUp (Zhang et al., ICLR 2018) or CutMix (Yun et al., ICCV 2019) over a finished training batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["MixUp", "CutMix"]
    alpha: float = Field(default=0.2, gt=0)
    """The share is drawn from Beta(alpha, alpha), once for a batch."""
    p: float = Field(default=1.0, ge=0, le=1)


class Plan(BaseModel):
    """What happens to the images of an index before a model sees them.

    Building a plan reads no image; running it never changes it. ``preprocess`` runs for every view, then
    ``augment`` and ``mix`` for training views or ``evaluate`` for all others; what does not augment must be
    deterministic. A trailing ``Normalize`` runs last, in every view, in one pass into the batch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: Path
    preprocess: tuple[TransformSpec, ...] = ()
    augment: tuple[TransformSpec, ...] = ()
    evaluate: tuple[TransformSpec, ...] = ()
    mix: Mix | None = None
    sampling: Sampling | None = None
    """How often training views show each class; None shows every image once an epoch."""
    batch: Batching = Batching()
    cache: Caching | None = None
    """Keeps pixels behind the deterministic beginning of ``preprocess``; changes no batch, unless as JPEG."""
    seed: int = Field(default=0, ge=0)
    device: Literal["cpu", "gpu"] = "cpu"
    """Where images are decoded and augmented: ``gpu`` takes everything that is lowered to DALI's GPU operators."""
    decode: Literal["auto", "exact"] = "auto"
    """``auto`` decodes a JPEG at 1/2, 1/4 or 1/8 of its size where what follows shrinks it at least as much;
    ``exact`` never does. Cutting out only what a crop keeps is exact and done either way."""
    lowering: Literal["exact", "approximate"] = "exact"
    """``approximate`` also takes DALI operators that follow another law than Albumentations, on a GPU."""

    errors: ErrorRules = ErrorRules()
    """What is done about files that cannot be used."""
    resources: WorkerResources | None = None
    """What each worker of a cluster holds, where the command line does not say."""

    @field_validator("preprocess", "augment", "evaluate", mode="before")
    @classmethod
    def _parse_policy(cls, value: Any, info: Any) -> tuple[TransformSpec, ...]:
        return parse_policy(value, str(info.field_name))

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a plan from YAML; a relative index path counts from the file's folder.

        Raises:
            PlanError: the file cannot be read, a key is unknown or a value is of another type.
        """
        return build_checked(cls, read_yaml(Path(path)), where=str(path), folder=Path(path).parent)

    def dump(self) -> dict[str, Any]:
        """Return the plan in its YAML form; ``Plan(**plan.dump()) == plan``."""
        policies = ("preprocess", "augment", "evaluate")
        plain = self.model_dump(mode="json", exclude=set(policies))
        for name in policies:
            plain[name] = [spec.dump() for spec in getattr(self, name)]
        return plain

    def save(self, path: Path | str) -> None:
        """Write the plan as YAML."""
        Path(path).write_text(yaml.safe_dump(json.loads(json.dumps(self.dump())), sort_keys=False))

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
        if self.cache is not None and self.cache.effect():
            content["cache"] = self.cache.effect()
        content["errors"] = self.errors.deciding()
        if content["errors"] == ErrorRules().deciding():
            del content["errors"]  # plans from before there were any keep their fingerprint
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class Normalization(BaseModel):
    """Constants of ``(x / 255 - mean) / std``, per RGB channel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top is a mapping, with the safe loader."""
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise PlanError(f"{path}: no such file; check the path, or write one as the README shows") from error
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).replace('in "<unicode string>", ', "").split())
        raise PlanError(
            f"{path}: wanted YAML, got something else ({reason}); check the indentation"
        ) from error
    if not isinstance(content, dict):
        raise PlanError(
            f"{path}: wanted 'key: value' lines, got {type(content).__name__}; see the README for an example"
        )
    return content


def build_checked(cls: type[M], content: Mapping[str, Any], *, where: str, folder: Path) -> M:
    """Build a pydantic model of ours from YAML; paths in it count from ``folder``.

    Raises:
        PlanError: in one line for each wrong key: its name, what was wanted and the nearest right name.
    """
    try:
        return cls.model_validate(resolve_paths(cls, dict(content), folder))
    except ValidationError as error:
        lines = [describe_error(cls, cast("dict[str, Any]", item)) for item in error.errors()]
        raise PlanError(f"{where}: " + "; ".join(lines)) from error


def describe_error(cls: type[BaseModel], item: dict[str, Any]) -> str:
    """Say in one line what is wrong with one key."""
    location = [str(part) for part in item["loc"]]
    place = ".".join(location)
    if item["type"] == "extra_forbidden":
        model: Any = cls
        for part in location[:-1]:
            annotation = model.model_fields[part].annotation if part in model.model_fields else model
            candidates = (annotation, *getattr(annotation, "__args__", ()))
            model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
        known = list(model.model_fields)
        return f"{place}: no such key; {nearest(location[-1], known) or 'known are ' + ', '.join(known)}"
    if item["type"] == "missing":
        return f"{place}: missing; add it"
    message = item["msg"].removeprefix("Value error, ").removeprefix(f"{place}: ")
    if item["type"] == "value_error":  # ours: says what was wanted and what was there
        return f"{place}: {message}".removeprefix(": ")
    if item["type"] in ("model_type", "dataclass_type"):
        message = "wanted 'key: value' lines below it"
    wanted = message.replace("Input should be ", "wanted ").partition(", unable to parse")[0]
    return f"{place}: {wanted}, got {item['input']!r}; correct it"
