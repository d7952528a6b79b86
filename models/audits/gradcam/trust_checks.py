"""Checks of the maps of a few images: against random weights, a moved patch, a mirrored image and deletion.

Forward passes of the model per image: 2 for its class and map, one for each randomised copy, 1 for the mirrored image, 1 for
the second method, ``4 * (STEPS + 1)`` for the curves, and 5 for the patch: 36. Each map adds a backward pass of what follows the target layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from ....pipeline.rng import derive_seed, numpy_generator
from ...explain.measures.agreement import rank_correlations
from ...explain.perturb.curves import (
    area_under,
    deletion_curve,
    deletion_ranks,
    insertion_curve,
    random_maps,
)
from ...explain.sanity.patch_response import follows_patch
from .opened_model import signed_maps

if TYPE_CHECKING:
    from ....pipeline.batch.batch import Batch
    from ...explain.grad_cam import Cam
    from .opened_model import AuditModel

TRUST_SCHEMA = pa.schema([("key", pa.string()), ("check", pa.string()), ("value", pa.float32())])
"""One row per image and check; null where the check has no value, such as the rank correlation of a constant map."""
RANDOMIZED = ("randomized_third", "randomized_two_thirds", "randomized_all")
"""Rank correlation of the map with that of a copy whose last layers are random."""
MIRRORED = "mirrored"
"""Rank correlation of the mirrored map with the map of the mirrored image."""
SECOND_METHOD = "second_method"
"""Rank correlation with the map of another method."""
PATCH = "patch"
"""1 if the map changes where a patch is, else 0."""
DELETION, DELETION_RANDOM = "deletion", "deletion_random"
"""Area under the deletion curve of the map, and of cells in random order; a smaller one is better."""
INSERTION, INSERTION_RANDOM = "insertion", "insertion_random"
"""The same for insertion; a larger one is better."""
MIN_IMAGES = 12
"""Fewer images give intervals too wide for a verdict, so that none is checked."""
STEPS = 5
"""Points of a curve after its first; each is a forward pass."""


@dataclass(frozen=True, slots=True)
class TrustChecks:
    """Measures the images of batches; see the module."""

    model: AuditModel
    cam: Cam
    random_cams: Sequence[Cam]
    """Of the randomised copies, in the order of `RANDOMIZED`."""
    second_cam: Cam
    """Of the model, by another method."""
    seed: int

    def __call__(self, batch: Batch) -> pa.RecordBatch:
        """Return the rows of a batch."""
        images, keys = self.model.images(batch)
        if not keys:
            return pa.RecordBatch.from_pylist([], schema=TRUST_SCHEMA)
        outputs = self.model.logits(images).argmax(dim=1)
        maps = signed_maps(self.cam, images, outputs).numpy()
        values: dict[str, np.ndarray] = {
            name: rank_correlations(maps, signed_maps(cam, images, outputs).numpy())
            for name, cam in zip(RANDOMIZED, self.random_cams, strict=True)
        }
        mirrored = signed_maps(self.cam, images.flip(3), outputs).numpy()
        values[MIRRORED] = rank_correlations(maps, mirrored[:, :, ::-1])
        values[SECOND_METHOD] = rank_correlations(maps, signed_maps(self.second_cam, images, outputs).numpy())
        values |= self._curves(images, keys, outputs, np.where(np.isfinite(maps), maps, 0))
        values[PATCH] = np.array(
            [
                follows_patch(self._maps, images[row : row + 1], int(output))
                for row, output in enumerate(outputs)
            ],
            np.float64,
        )
        return trust_rows(keys, values)

    def _maps(self, images: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        return signed_maps(self.cam, images, outputs)

    def _curves(
        self, images: torch.Tensor, keys: Sequence[str], outputs: torch.Tensor, maps: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return areas under the curves of the rectified maps and of random maps, the latter seeded by key."""
        map_size, size = (
            (int(maps.shape[1]), int(maps.shape[2])),
            (int(images.shape[2]), int(images.shape[3])),
        )
        random = np.concatenate(
            [
                random_maps(
                    1, map_size, numpy_generator(derive_seed("audit.trust", self.seed, 0, f"order {key}"))
                )
                for key in keys
            ]
        )
        found = {}
        for deletion, insertion, each in (
            (DELETION, INSERTION, np.maximum(maps, 0)),
            (DELETION_RANDOM, INSERTION_RANDOM, random),
        ):
            ranks, model = deletion_ranks(each, size), self.model
            deleted = deletion_curve(
                model.probabilities, images, outputs, ranks, steps=STEPS, remove=model.remove
            )
            inserted = insertion_curve(model.probabilities, images, outputs, ranks, steps=STEPS)
            found[deletion], found[insertion] = area_under(deleted).numpy(), area_under(inserted).numpy()
        return found


def trust_rows(keys: Sequence[str], values: Mapping[str, np.ndarray]) -> pa.RecordBatch:
    """Return a row per image and check, without images that a check leaves out."""
    rows = [
        {"key": key, "check": name, "value": None if np.isnan(value) else float(value)}
        for name, column in values.items()
        for key, value in zip(keys, column, strict=True)
        if not (name == PATCH and np.isnan(value))
    ]
    return pa.RecordBatch.from_pylist(rows, schema=TRUST_SCHEMA)
