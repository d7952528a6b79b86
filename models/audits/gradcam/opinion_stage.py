"""The stage that asks other attribution methods about the images of the gallery."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ....pipeline.jobs.fingerprint import fingerprint_of
from ....pipeline.jobs.stages import Batches, Inputs, Process, Source
from ....pipeline.plan.view import View
from ....pipeline.rng import derive_seed
from ...explain.attribution.opinions import SHOWN, ask_others
from ...zoo.forward import run_model
from .gallery import choose_rows
from .records import MAP_VALUES, MAPS, OPINIONS, maps_array, read_predictions

if TYPE_CHECKING:
    from ....pipeline.batch.batch import Batch
    from .config import AuditConfig
    from .opened_model import AuditModel

OPINION_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("method", pa.string()),
        ("explained", pa.int64()),  # target class, that of the column `map`
        # Row-major on a grid of 28 x 28, signed, divided by its scale, the largest absolute value.
        ("attribution", MAP_VALUES),
        ("attribution_scale", pa.float32()),
        ("rank_correlation", pa.float32()),  # with the map, on its grid; null if either is constant
        ("top_overlap", pa.float32()),  # share of the map's strongest tenth of cells among its own
        ("num_forward", pa.int32()),  # images that went through the model
    ]
)
"""One row per image of the gallery and method. Times are not kept: equal runs have equal records."""


@dataclass(frozen=True)
class OpinionStage:
    """Attributions of the gallery's images by the methods of ``second_opinions``."""

    audit: AuditConfig

    name = OPINIONS
    needs = (MAPS,)
    schema = OPINION_SCHEMA

    def fingerprint(self) -> str:
        """Hash what determines the attributions, besides the maps."""
        from ...explain.attribution import methods

        sizes = [methods.IG_STEPS, methods.SHAP_GRADIENTS, methods.SEGMENT_SAMPLES, methods.SEGMENTS, SHOWN]
        audit = self.audit
        return fingerprint_of([audit.plan.seed, audit.gallery, sorted(audit.second_opinions), sizes])

    def source(self, inputs: Inputs) -> Source:
        """Return the images of the gallery."""
        preds = read_predictions(inputs[MAPS])
        rows = [row for chosen in choose_rows(preds, self.audit.gallery).values() for row in chosen]
        keys = tuple(str(preds.keys[row]) for row in rows) if self.audit.gallery else ()
        return Batches(self.audit.plan, View(split=self.audit.split, keys=keys))

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:
        """Load the model; yields a function that explains the images of a batch.

        Raises:
            ModelError: no such model or device.
            PlanError: Captum is not installed.
        """
        from ...explain.attribution.names import check_captum
        from .opened_model import open_audit_model

        check_captum()
        with open_audit_model(self.audit) as model:
            yield lambda batch: self._explain(model, inputs[MAPS], batch)

    def _explain(self, model: AuditModel, maps: pa.Table, batch: Batch) -> pa.RecordBatch:
        images, keys = model.images(batch)
        records = maps.take(pc.index_in(pa.array(keys, pa.string()), value_set=maps["key"].combine_chunks()))
        signed, explained = maps_array(records), records["explained"].to_pylist()
        rows: list[dict[str, Any]] = []
        for number, key in enumerate(keys):
            image, output = images[number : number + 1], model.output_of(explained[number])
            opinions = ask_others(
                lambda some: torch.as_tensor(run_model(model.model, some)),
                image,
                output,
                signed[number],
                self.audit.second_opinions,
                baseline=model.remove(image, torch.ones(image.shape[2:], dtype=torch.bool)),
                seed=derive_seed("audit.opinions", self.audit.plan.seed, 0, key),
            )
            for opinion in opinions:
                scale = float(np.abs(opinion.attribution).max())
                rows.append(
                    {
                        "key": key,
                        "method": opinion.method,
                        "explained": explained[number],
                        "attribution": (opinion.attribution / (scale or 1.0)).astype(np.float16).ravel(),
                        "attribution_scale": scale,
                        "rank_correlation": _number(opinion.rank_correlation),
                        "top_overlap": _number(opinion.top_overlap),
                        "num_forward": opinion.num_forward,
                    }
                )
        return pa.RecordBatch.from_pylist(rows, schema=OPINION_SCHEMA)


def summarize_opinions(records: pa.Table) -> list[dict[str, Any]]:
    """Return the mean agreement and cost of each method, by its name, for findings.json."""
    grouped = records.group_by("method", use_threads=False).aggregate(
        [("rank_correlation", "mean"), ("top_overlap", "mean"), ("num_forward", "mean"), ("key", "count")]
    )
    return sorted(
        (
            {
                "method": row["method"],
                "num_images": row["key_count"],
                "rank_correlation": row["rank_correlation_mean"],
                "top_overlap": row["top_overlap_mean"],
                "forward_passes": row["num_forward_mean"],
            }
            for row in grouped.to_pylist()
        ),
        key=lambda row: str(row["method"]),
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
