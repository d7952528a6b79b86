"""Features of the images of a plan: looked up in a cache on disk, computed where they are missing.

They are stored like decoded pixels (``pipeline/cache``), one entry per image and view, under the fingerprint of trunk,
transforms and version of the file. So a changed file costs one image, and runs with other heads share all features.
Without a folder, or where the cache is full, they are kept in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from ...pipeline.cache.key import CacheKeys
from ...pipeline.cache.store import PixelCache
from ...pipeline.errors import RunError
from ...pipeline.plan.plan import Plan
from ...pipeline.plan.view import View
from ..training.evaluation import parameter_dtype
from ..training.train_batch import to_train_batch
from ..zoo.forward import eval_mode
from .recipe import feature_recipe
from .split_features import SplitFeatures

if TYPE_CHECKING:
    from ...pipeline.batch.batch import Batch
    from ...pipeline.index.index import Index
    from ...pipeline.jobs.contracts import Context
    from ..training.distributed.context import DistributedContext

FOLDER = "features"
"""Folder of the features below the output folder of a run, if the plan has no cache."""


class Trunk(Protocol):
    """Computes features of images."""

    @property
    def model(self) -> torch.nn.Module:
        """The whole network."""
        ...

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features of images, one row for each; the network is in eval mode."""
        ...

    def check(self, images: torch.Tensor) -> None:
        """Check that the features are right; raises ModelError."""
        ...

    def digest(self) -> str:
        """Hash everything that determines the features of an image."""
        ...


@dataclass
class FeatureCache:
    """Features that a trunk computes for the images of a plan.

    Args:
        network: the network; it is run in eval mode.
        name: name of the network, for people who list the cache.
        plan: the plan.
        index: its index.
        folder: of the cache; None keeps features in memory.
        stored_dtype: type that features are rounded to; None keeps that of the network's parameters.
    """

    network: Trunk
    name: str
    plan: Plan
    index: Index
    context: Context
    device: torch.device
    dist: DistributedContext
    folder: Path | None = None
    stored_dtype: np.dtype[Any] | None = None
    _is_checked: bool = False

    @cached_property
    def keys(self) -> list[str]:
        """Keys of all samples of the index."""
        keys: list[str] = self.index.table["key"].to_pylist()
        return keys

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Type of the features, in memory and on disk."""
        if self.stored_dtype is not None:
            return self.stored_dtype
        return np.dtype(str(parameter_dtype(self.network.model)).removeprefix("torch."))

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Name, digest, device and type of the trunk."""
        return {
            "model": self.name,
            "trunk": self.network.digest(),
            "device": self.device.type,
            "dtype": str(self.dtype),
        }

    def open(self, split: str | None, augmented_pass: int | None = None) -> SplitFeatures:
        """Open the features of a split, and compute those that are missing.

        A collective operation of all ranks. Each computes a share; ranks that do not share the folder compute the rest too.

        Args:
            split: name of the split; None for all.
            augmented_pass: number of an epoch of the training view; None for images as in evaluation.

        Raises:
            PlanError: a transform depends on annotations.
            ModelError: trunk and rest do not compute what the network does.
            RunError: a feature is too large for its type, or more images are bad than the plan tolerates.
        """
        options = self.plan.cache
        recipe = feature_recipe(self.plan, self.facts, augmented_pass)
        store = None
        if self.folder is not None:
            store = PixelCache(
                self.folder,
                recipe,
                max_bytes=None if options is None else options.max_bytes,
                shared=options is not None and options.shared,
            )
        by_sample = augmented_pass is not None and bool(self.plan.augment)
        keys = CacheKeys(self.index.table, recipe.fingerprint(), by_sample=by_sample)
        rows = self.index.rows(split)
        view = View(augment=augmented_pass is not None, first_epoch=augmented_pass or 0)
        found = SplitFeatures(self, rows, view, keys, store)
        found.compute_missing()
        return found

    def compute(self, rows: np.ndarray, view: View, *, is_rest: bool) -> Iterator[tuple[str, np.ndarray]]:
        """Yield keys and features of the images of some rows; those that cannot be used are left out.

        Raises:
            RunError: more images are bad than the plan tolerates.
        """
        errors = self.plan.errors
        if errors.on_error == "replace":
            errors = errors.model_copy(update={"on_error": "skip"})
        if is_rest:  # perhaps the bad images only
            errors = errors.model_copy(update={"max_bad": None, "max_bad_share": None})
        plan = self.plan.model_copy(update={"errors": errors, "mix": None, "progressive_size": None})
        selected = View(
            augment=view.augment, first_epoch=view.first_epoch, keys=tuple(self.keys[row] for row in rows)
        )
        with self.context.engine.feed(plan, selected) as feed:
            for batch in self.context.console.track(feed, "features"):
                if len(batch):
                    yield from zip(batch.keys, self._run(batch), strict=True)

    def _run(self, batch: Batch) -> np.ndarray:
        images = to_train_batch(batch, self.device).inputs.to(parameter_dtype(self.network.model))
        with eval_mode(self.network.model):
            if not self._is_checked:
                self.network.check(images[:2])
                self._is_checked = True
            features = self.network.features(images)
        if features.ndim == 4:  # channels last, as the trunk computes them
            features = features.permute(0, 2, 3, 1)
        return self._rounded(features.cpu().contiguous().numpy())

    def _rounded(self, features: np.ndarray) -> np.ndarray:
        """Round features to ``stored_dtype``.

        Raises:
            RunError: one is too large for it.
        """
        if self.stored_dtype is None:
            return features
        limit, largest = np.finfo(self.dtype).max, np.abs(features).max(initial=0)
        if largest > limit:
            raise RunError(
                f"feature_dtype: expected features of at most {limit:,.0f} for {self.dtype}, got {largest:,.0f}; "
                "remove feature_dtype"
            )
        return features.astype(self.dtype)
