"""The stage that checks the maps of a sample of images, before findings are built on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ....pipeline.jobs.fingerprint import fingerprint_of
from ....pipeline.jobs.stages import Batches, Inputs, Process, Source
from ....pipeline.plan.view import View
from ....pipeline.rng import derive_seed
from .records import MAPS, TRUST
from .trust_checks import MIN_IMAGES, RANDOMIZED, STEPS, TRUST_SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa

    from ....pipeline.batch.batch import Batch
    from .config import AuditConfig


@dataclass(frozen=True)
class TrustStage:
    """Checks of the maps of at most ``trust_images`` images."""

    audit: AuditConfig

    name = TRUST
    needs = (MAPS,)
    schema = TRUST_SCHEMA

    def fingerprint(self) -> str:
        """Hash what determines the checks, besides the maps."""
        return fingerprint_of([self.audit.plan.seed, self.audit.trust_images, MIN_IMAGES, STEPS])

    def source(self, inputs: Inputs) -> Source:
        """Return the images of the sample."""
        keys = sample_keys(inputs[MAPS], self.audit.trust_images, self.audit.plan.seed)
        return Batches(self.audit.plan, View(split=self.audit.split, keys=keys))

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:
        """Load the model and make its randomised copies; yields a function that checks a batch.

        Raises:
            ModelError: no such model, layer or device.
        """
        from ...explain.cam.explainer import class_activation_maps
        from ...explain.sanity.randomize import randomized_copies
        from .opened_model import open_audit_model
        from .trust_checks import TrustChecks

        seed, maps = self.audit.plan.seed, inputs[MAPS]
        keys = sample_keys(maps, self.audit.trust_images, seed)
        if not keys:
            yield no_batches
            return
        layer = maps["target_layer"][0].as_py()
        with ExitStack() as stack:
            opened = stack.enter_context(open_audit_model(self.audit))
            copies = randomized_copies(opened.model, len(RANDOMIZED), seed)
            models = [opened.model, *(copy.to(opened.device) for copy in copies)]
            cam, *random_cams = (
                stack.enter_context(class_activation_maps(model, layer, self.audit.method))
                for model in models
            )
            yield TrustChecks(
                opened,
                cam,
                random_cams,
                stack.enter_context(
                    class_activation_maps(opened.model, layer, second_method(self.audit.method))
                ),
                seed,
            )


def sample_keys(maps: pa.Table, num: int, seed: int) -> tuple[str, ...]:
    """Choose images with a map at random, by their keys, so that neither order nor number of images matters.

    None if there are fewer than `MIN_IMAGES`, which would give no verdict.
    """
    usable = np.asarray([empty is False for empty in maps["blank"].to_pylist()], np.bool_)
    keys = np.asarray(maps["key"].to_pylist(), dtype=object)[usable].tolist()
    chosen = sorted(keys, key=lambda key: derive_seed("audit.trust", seed, 0, f"sample {key}"))[:num]
    return tuple(chosen) if len(chosen) >= MIN_IMAGES else ()


def second_method(method: str) -> str:
    """Return the method that maps are compared with: LayerCAM, or Grad-CAM where that is the audit's own."""
    return "layer-cam" if method != "layer-cam" else "grad-cam"


def no_batches(batch: Batch) -> pa.RecordBatch:
    """Take the place of a stage's function if its source is empty, so that no model is loaded for nothing."""
    raise AssertionError(batch)
