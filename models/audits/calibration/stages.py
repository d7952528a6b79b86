"""The stages of ``calibrate: true``: which experiments, the images that they need, and their results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from ....pipeline.jobs.fingerprint import fingerprint_of
from ....pipeline.jobs.stages import Batches, Inputs, Process, Rows, Source
from ....pipeline.plan.view import View
from ....pipeline.rng import derive_seed
from ..gradcam.gallery import class_name
from ..gradcam.picture_stage import PictureStage, read_pictures
from ..gradcam.records import MAPS, column
from ..gradcam.suspects.search import SEARCH_VERSION
from ..gradcam.verdicts import VERDICT_VERSION
from .detection_limit import Outcome, limit_to_dict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..gradcam.config import AuditConfig
    from .plants import Kind

EXPERIMENTS, EXPERIMENT_IMAGES, CALIBRATION = "experiments", "experiment_images", "calibration"
"""Names of the stages."""
CALIBRATION_VERSION = 1
"""Increased whenever equal images and models give other results."""
AREAS = (0.01, 0.03, 0.1)
PREVALENCES = (0.2, 0.5, 1.0)
REPEATS = 5
"""Experiments of each area and prevalence, with other halves of the images and another class."""
MAX_CLASSES = 4
MAX_PER_CLASS = 100
MIN_PER_CLASS = 20
"""Half of them are audited, and regions are searched for in classes of at least 10."""
MARK: Kind = "logo"
"""Drawn in two tones, so that it differs from almost any photo."""
MIN_SIDE = 16
"""Of an image, in pixels."""
NUM_CHANNELS = 3

EXPERIMENTS_SCHEMA = pa.schema(
    {
        "number": pa.int64(),
        "target": pa.int64(),  # the class that gets the mark, numbered like labels
        "area": pa.float64(),
        "prevalence": pa.float64(),
        "keys": pa.list_(pa.string()),  # images of all experiments; in the first row only
        "labels": pa.list_(pa.int64()),  # theirs
        "reason": pa.string(),  # why there are no experiments; empty if there are
    }
)
CALIBRATION_SCHEMA = pa.schema(
    {
        "number": pa.int64(),
        "area": pa.float64(),
        "prevalence": pa.float64(),
        "relies": pa.bool_(),
        "found": pa.bool_(),
        "confirmed": pa.bool_(),
        "reason": pa.string(),  # why the experiment could not run; empty if it did
    }
)


@dataclass(frozen=True)
class ExperimentStage:
    """Which marks are planted in which images."""

    audit: AuditConfig
    areas: tuple[float, ...] = AREAS
    prevalences: tuple[float, ...] = PREVALENCES
    repeats: int = REPEATS

    name = EXPERIMENTS
    needs = (MAPS,)
    schema = EXPERIMENTS_SCHEMA

    def fingerprint(self) -> str:
        """Hash what determines the experiments, besides the maps."""
        bounds = [MAX_CLASSES, MAX_PER_CLASS, MIN_PER_CLASS, self.areas, self.prevalences, self.repeats]
        return fingerprint_of([CALIBRATION_VERSION, self.audit.plan.seed, *bounds])

    def source(self, inputs: Inputs) -> Source:  # noqa: ARG002
        """Return all maps at once."""
        return Rows(MAPS)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:  # noqa: ARG002
        """Yield a function that lists the experiments."""
        sizes = list(product(self.areas, self.prevalences)) * self.repeats
        yield lambda records: list_experiments(records, self.audit.plan.seed, sizes)


@dataclass(frozen=True)
class ExperimentImageStage(PictureStage):
    """Pixels of the images in which marks are planted."""

    name: ClassVar[str] = EXPERIMENT_IMAGES
    needs: ClassVar[tuple[str, ...]] = (EXPERIMENTS,)

    def fingerprint(self) -> str:
        """Hash the plan."""
        return fingerprint_of([self.audit.plan.fingerprint()])

    def source(self, inputs: Inputs) -> Source:
        """Return the images of the experiments."""
        keys = tuple(pool_of(inputs[EXPERIMENTS]))
        return Batches(self.audit.plan, View(split=self.audit.split, keys=keys))


@dataclass(frozen=True)
class CalibrationStage:
    """Which of the planted marks an audit finds."""

    audit: AuditConfig

    name = CALIBRATION
    needs = (EXPERIMENTS, EXPERIMENT_IMAGES)
    schema = CALIBRATION_SCHEMA

    def fingerprint(self) -> str:
        """Hash what determines the results, besides the images."""
        return fingerprint_of(
            [
                CALIBRATION_VERSION,
                SEARCH_VERSION,
                VERDICT_VERSION,
                self.audit.plan.seed,
                self.audit.target_layer,
            ]
        )

    def source(self, inputs: Inputs) -> Source:  # noqa: ARG002
        """Return the experiments, one at a time."""
        return Rows(EXPERIMENTS, batch_size=1)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:
        """Load the model and compute activations of all images; yields a function that runs an experiment.

        Raises:
            ModelError: no such model or device.
        """
        from .experiments import open_experiments

        reason = inputs[EXPERIMENTS]["reason"][0].as_py()
        if reason:
            yield lambda _: not_run(reason)
            return
        with open_experiments(self.audit, inputs[EXPERIMENTS], inputs[EXPERIMENT_IMAGES]) as run:
            yield run


def list_experiments(records: pa.Table, seed: int, sizes: Sequence[tuple[float, float]]) -> pa.RecordBatch:
    """Return one row per experiment, or a single one with the reason for having none.

    Args:
        records: of the stage ``maps``.
        seed: of the plan.
        sizes: area and prevalence of the mark of each experiment.
    """
    labels, known = column(records, "label"), np.asarray(records["known"].to_pylist(), np.bool_)
    numbers, counts = np.unique(labels[known & (labels >= 0)], return_counts=True)
    order = np.lexsort([numbers, -counts])
    chosen = sorted(numbers[order][counts[order] >= MIN_PER_CLASS][:MAX_CLASSES].tolist())
    if len(chosen) < 2:
        reason = (
            "no image has a label that the model knows"
            if not len(numbers)
            else f"it takes two classes with {MIN_PER_CLASS} labelled images each, and the split has {len(chosen)}"
        )
        return pa.RecordBatch.from_pylist([{"number": 0, "reason": reason}], schema=EXPERIMENTS_SCHEMA)
    keys = np.asarray(records["key"].to_pylist(), object)
    pool = {
        key: number
        for number in chosen
        for key in sorted(_draw(keys[known & (labels == number)].tolist(), seed)[:MAX_PER_CLASS])
    }
    num_kinds = len(set(sizes))
    rows: list[dict[str, Any]] = [
        {
            "number": number,
            "target": chosen[
                (number % num_kinds + number // num_kinds) % len(chosen)
            ],  # another class in each repeat
            "area": area,
            "prevalence": prevalence,
            "reason": "",
        }
        for number, (area, prevalence) in enumerate(sizes)
    ]
    rows[0] |= {"keys": list(pool), "labels": list(pool.values())}
    return pa.RecordBatch.from_pylist(rows, schema=EXPERIMENTS_SCHEMA)


def _draw(keys: list[str], seed: int) -> list[str]:
    """Return keys in a random order that does not depend on theirs."""
    return sorted(keys, key=lambda key: derive_seed("calibration", seed, 0, f"sample {key}"))


def pool_of(experiments: pa.Table) -> dict[str, int]:
    """Return the images of the experiments: label by key."""
    keys, labels = experiments["keys"][0].as_py(), experiments["labels"][0].as_py()
    return dict(zip(keys or (), labels or (), strict=True))


def not_run(reason: str) -> pa.RecordBatch:
    """Return the record of an experiment that could not run."""
    return pa.RecordBatch.from_pylist([{"reason": reason}], schema=CALIBRATION_SCHEMA)


def cost_sentence() -> str:
    """Return the largest number of forward passes of a calibration, in words."""
    from ..gradcam.interventions import MAX_SUSPECTS
    from .condition import NUM_PAIRS, NUM_PASTED

    num, num_images = REPEATS * len(AREAS) * len(PREVALENCES), MAX_CLASSES * MAX_PER_CLASS
    planted = MAX_PER_CLASS + NUM_PASTED
    per_finding = 6 * NUM_PAIRS
    return (
        f"calibrate: at most {num} experiments on {num_images} images: about "
        f"{num_images + num * (planted + per_finding):,} forward passes, {planted} for an experiment and {per_finding} "
        f"for each of its candidate findings, of which at most {MAX_SUSPECTS} are tested"
    )


def read_pool_images(pool: dict[str, int], images: pa.Table) -> tuple[list[str], NDArray[np.uint8] | str]:
    """Return the keys and the images (N, H, W, 3) in the order of the pool, or why marks cannot be planted in them."""
    pictures = read_pictures(images)
    keys = [key for key in pool if key in pictures]
    shapes = {pictures[key].pixels.shape for key in keys}
    if len(shapes) != 1:
        return keys, "its images have several sizes"
    (shape,) = shapes
    if shape[2:] != (NUM_CHANNELS,) or min(shape[:2]) < MIN_SIDE:
        return (
            keys,
            f"marks are drawn on RGB images of at least {MIN_SIDE} pixels a side, and these are {shape}",
        )
    return keys, np.stack([pictures[key].pixels for key in keys])


def summarize_calibration(
    experiments: pa.Table, results: pa.Table, names: Sequence[str], seed: int
) -> dict[str, Any]:
    """Return the detection limit as JSON values, for ``findings.json``.

    Args:
        experiments: records of the stage of that name.
        results: records of the stage ``calibration``.
        names: of all classes by number.
        seed: of the plan.
    """
    pool = pool_of(experiments)
    numbers, sizes = np.unique(list(pool.values()), return_counts=True)
    reason = next(filter(None, results["reason"].to_pylist()), "")
    columns = [name for name in CALIBRATION_SCHEMA.names if name not in ("number", "reason")]
    outcomes = [] if reason else [Outcome(**row) for row in results.select(columns).to_pylist()]
    facts = {
        "mark": MARK,
        "largest_area": max(AREAS),
        "classes": [class_name(int(number), names) for number in numbers.tolist()],
        "num_images": len(pool),
        "images_per_class": int(sizes.min(initial=MAX_PER_CLASS)) // 2 if len(sizes) else 0,
    }
    return limit_to_dict(outcomes, seed, reason, facts)
