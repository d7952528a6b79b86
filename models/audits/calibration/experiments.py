"""Runs the experiments of a calibration on one worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from ....pipeline.batch.buffers import Normalizer
from ....pipeline.compiler.program import Program
from ....pipeline.errors import ModelError
from ....pipeline.rng import derive_seed
from ...zoo.device import torch_device
from ..gradcam.audited_model import load_audited_model
from .condition import Condition, run_condition
from .frozen_network import Inputs, open_frozen_network
from .plants import Mark
from .probed_images import ImagePool
from .scoring import score
from .stages import CALIBRATION_SCHEMA, MARK, not_run, pool_of, read_pool_images

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ....pipeline.jobs.stages import Process
    from ..gradcam.config import AuditConfig
    from .frozen_network import FrozenNetwork


@contextmanager
def open_experiments(audit: AuditConfig, experiments: pa.Table, images: pa.Table) -> Iterator[Process]:
    """Load the model, which is changed, and compute the activations of all images; yields a function for one experiment.

    Raises:
        ModelError: no such model or device.
    """
    pool = pool_of(experiments)
    keys, pixels = read_pool_images(pool, images)
    if isinstance(pixels, str):
        reason = pixels
        yield lambda _: not_run(reason)
        return
    program, model, device = (
        Program.compile(audit.plan),
        load_audited_model(audit),
        torch_device(audit.device),
    )
    with ExitStack() as stack:
        try:
            network = stack.enter_context(
                open_frozen_network(
                    model,
                    plan_inputs(program),
                    pixels[0],
                    device=device,
                    is_normalized=program.normalization is not None,
                    target_layer=audit.target_layer,
                )
            )
        except ModelError as error:
            reason = str(error).removeprefix("calibrate: ")
            yield lambda _: not_run(reason)
            return
        yield _Experiments(audit.plan.seed, network, image_pool(pool, keys, pixels, network))


class _Experiments:
    """Runs single experiments."""

    def __init__(self, seed: int, network: FrozenNetwork, pool: ImagePool) -> None:
        self._seed, self._network, self._pool = seed, network, pool

    def __call__(self, records: pa.Table) -> pa.RecordBatch:
        """Return the result of each experiment."""
        return pa.RecordBatch.from_pylist(
            [self._run(row) for row in records.to_pylist()], schema=CALIBRATION_SCHEMA
        )

    def _run(self, row: dict[str, Any]) -> dict[str, Any]:
        condition = Condition(
            Mark(MARK, row["area"]),
            self._pool.names.index(str(row["target"])),
            row["prevalence"],
            seed=derive_seed("calibration", self._seed, 0, f"experiment {row['number']}"),
        )
        scored = score(run_condition(self._pool, self._network, condition))
        return {
            **{name: row[name] for name in ("number", "area", "prevalence")},
            "relies": scored.relies,
            "found": scored.found,
            "confirmed": scored.confirmed,
            "reason": "",
        }


def image_pool(
    labels: dict[str, int], keys: list[str], pixels: NDArray[np.uint8], network: FrozenNetwork
) -> ImagePool:
    """Return images with their activations; classes are numbered from 0, and named by their labels."""
    numbers, places = np.unique([labels[key] for key in keys], return_inverse=True)
    return ImagePool(
        np.array(keys, object),
        places.astype(np.int64),
        [str(number) for number in numbers.tolist()],
        pixels,
        network.activations(pixels),
    )


def plan_inputs(program: Program) -> Inputs:
    """Return a function that normalises pixels as the plan does."""
    if program.normalization is None:
        return torch.from_numpy
    normalizer = Normalizer(program.normalization)

    def normalize(images: NDArray[np.uint8]) -> torch.Tensor:
        found = np.empty(images.shape, np.float32)
        for image, out in zip(images, found, strict=True):
            normalizer.write(image, out)
        return torch.from_numpy(found).permute(0, 3, 1, 2)

    return normalize
