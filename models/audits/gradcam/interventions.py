"""What changing a suspect region does to the probability of its class, image by image.

For each suspect a number of pairs: an image that shows it, and another one. Of the first, the region is removed, and a control
region of equal area elsewhere; into the second, the pixels of either are pasted. That is 6 forward passes per pair:

======== =================== ============================= ===================================
image    before              after                         control
======== =================== ============================= ===================================
own      as it is            without the region            without the control region
other    as it is            with the region's pixels      with those of the control region
======== =================== ============================= ===================================

With the default of 24 pairs, a suspect costs 144 forward passes and the decoding of 48 images, and at most `MAX_SUSPECTS` are
tested: 5,760 forward passes, whatever the size of the data set. Without other images (a model that predicts one class for
all), 72.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from ....pipeline.rng import derive_seed, numpy_generator
from ...explain.perturb.fill import impute_linear, paste
from ...explain.perturb.regions import control_cells, pixel_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ....pipeline.batch.batch import Batch
    from ..findings.finding import Finding
    from .opened_model import AuditModel

MAX_SUSPECTS = 40
"""Suspects that are tested, those of the smallest q-value."""
MAX_IMPUTED = 0.25
"""Larger regions are filled with the mean: there is too little around them to continue from."""
OWN, OTHER = "own", "other"
INTERVENTION_SCHEMA = pa.schema(
    [
        ("finding", pa.string()),  # id of the suspect
        ("key", pa.string()),
        ("role", pa.string()),  # own: shows the suspect, and the region is removed; other: it is pasted
        ("partner", pa.string()),  # the image whose pixels are pasted; null for own
        ("before", pa.float32()),  # probability of the suspect's class
        ("after", pa.float32()),  # with the region changed
        ("control", pa.float32()),  # with the control region changed
        ("prediction_before", pa.int64()),  # classes, numbered like labels
        ("prediction_after", pa.int64()),
        ("prediction_control", pa.int64()),
        ("control_overlap", pa.float32()),  # share of the control region that is in the region
    ]
)
"""One row per suspect and image."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An image that shows a suspect, and another one."""

    suspect: int
    """Place in the list of suspects."""
    own: str
    other: str | None

    @property
    def keys(self) -> tuple[str, str]:
        """Keys to read; the own image twice if there is no other."""
        return self.own, self.other or self.own


def choose_suspects(suspects: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return the suspects with a region, a class and images: at most `MAX_SUSPECTS`, those of the smallest q-value first."""
    found = [each for each in suspects if each.region is not None and each.keys and each.class_number >= 0]
    return tuple(
        sorted(found, key=lambda each: (1.0 if each.null.q is None else each.null.q, each.id))[:MAX_SUSPECTS]
    )


def make_pairs(suspects: Sequence[Finding], num: int) -> tuple[Pair, ...]:
    """Return at most ``num`` pairs per suspect; other images are repeated if there are fewer."""
    pairs = []
    for number, suspect in enumerate(suspects):
        others = [key for key in suspect.other_keys if key not in suspect.keys]
        for place, own in enumerate(suspect.keys[:num]):
            pairs.append(Pair(number, own, others[place % len(others)] if others else None))
    return tuple(pairs)


@dataclass(frozen=True, slots=True)
class Interventions:
    """Tests the pairs of batches, which hold both images of each pair side by side."""

    model: AuditModel
    suspects: Sequence[Finding]
    pairs: Sequence[Pair]
    maps: Mapping[str, NDArray[np.float32]]
    """Rectified map of each own image, whose strongest cells control regions avoid."""
    pairs_per_batch: int
    seed: int

    def __call__(self, batch: Batch) -> pa.RecordBatch:
        """Return the rows of a batch; pairs with an image that cannot be read any more are left out."""
        rows: list[dict[str, Any]] = []
        usable = batch.is_valid
        for place in range(len(batch) // 2):
            own, other = 2 * place, 2 * place + 1
            pair = self.pairs[batch.step * self.pairs_per_batch + place]
            has_class = self.model.output_of(self.suspects[pair.suspect].class_number) >= 0
            if usable[own] and usable[other] and has_class:
                rows += self._test(pair, self.model.inputs(batch.images[own : other + 1]))
        return pa.RecordBatch.from_pylist(rows, schema=INTERVENTION_SCHEMA)

    def _test(self, pair: Pair, images: torch.Tensor) -> list[dict[str, Any]]:
        """Test one pair of images, (2, C, H, W)."""
        suspect = self.suspects[pair.suspect]
        assert suspect.region is not None
        cells = suspect.region.weights
        generator = numpy_generator(
            derive_seed("audit.interventions", self.seed, 0, f"{suspect.id} {pair.own}")
        )
        elsewhere, overlap = control_cells(cells, self.maps.get(pair.own), generator)
        size = int(images.shape[2]), int(images.shape[3])
        region, control = (torch.from_numpy(pixel_mask(each, size)) for each in (cells, elsewhere))
        own, other = images[:1], images[1:]
        changed = [own, self._remove(own, region), self._remove(own, control)]
        if pair.other is not None:
            changed += [other, paste(other, own, region), paste(other, own, control)]
        probabilities = self.model.probabilities(torch.cat(changed))
        of_class = probabilities[:, self.model.output_of(suspect.class_number)].tolist()
        predicted = [
            self.model.match.class_of_output[output] for output in probabilities.argmax(dim=1).tolist()
        ]
        found = []
        for first, role, key, partner in ((0, OWN, pair.own, None), (3, OTHER, pair.other, pair.own)):
            if key is not None:
                names = ("before", "after", "control")
                found.append(
                    {
                        "finding": suspect.id,
                        "key": key,
                        "role": role,
                        "partner": partner,
                        "control_overlap": overlap,
                    }
                    | dict(zip(names, of_class[first : first + 3], strict=True))
                    | {f"prediction_{name}": predicted[first + at] for at, name in enumerate(names)}
                )
        return found

    def _remove(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        small = bool(mask.float().mean() <= MAX_IMPUTED)
        return impute_linear(images, mask) if small else self.model.remove(images, mask)
