"""Embed: write the features of a network for every image as Parquet.

A job file::

    job: embed
    plan: plan.yaml
    model: {name: tf_efficientnet_lite0}    # or  checkpoint: train/best.safetensors
    split: test                             # default: all images

``lightwell embed PLAN --model NAME --out DIR`` writes features.parquet: key, label, class, split and feature, the input of the
network's classifier. Images are read as in evaluation; those that cannot be used are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from ...pipeline.jobs.fingerprint import fingerprint_of
from ...pipeline.jobs.stages import Batches, Inputs, Process, Source
from ...pipeline.plan.plan import Plan
from ...pipeline.plan.view import View
from ..report.versions import versions
from ..zoo.build import ModelSpec
from .model_choice import ModelChoice

if TYPE_CHECKING:
    import pyarrow as pa

    from ...pipeline.batch.batch import Batch
    from ...pipeline.jobs.contracts import Context

STAGE = "features"
FILE_NAME = "features.parquet"
EMBED_VERSION = 1
"""Increased whenever equal jobs give other features."""


class Embed(ModelChoice):
    """Write the features of every image of a split as Parquet."""

    plan: Plan
    split: str | None = None
    """None reads all images."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """torch device of the network; ``auto`` uses a GPU if available."""

    @property
    def stages(self) -> tuple[FeatureStage, ...]:
        """The stage that computes the features."""
        return (FeatureStage(self),)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output files."""
        return (FILE_NAME,)

    def finish(self, records: Inputs, context: Context) -> Mapping[str, Any]:
        """Put the records in place; return the number of images and the width of the features."""
        context.export_records(STAGE, FILE_NAME)
        table = records[STAGE]
        return {
            "images": table.num_rows,
            "width": table.schema.field("feature").type.list_size,
            **{name: context.counts[name] for name in ("read", "replaced", "skipped")},
        }


@dataclass(frozen=True)
class FeatureStage:
    """Features of the images of a view, in order."""

    job: Embed

    name = STAGE
    needs = ()

    @property
    def schema(self) -> pa.Schema:
        """A row per image; builds the network once to know how wide its features are."""
        import pyarrow as pa

        width = feature_width(self.job.spec().model_dump_json())
        return pa.schema(
            [
                ("key", pa.string()),
                ("label", pa.int64()),
                ("class", pa.string()),
                ("split", pa.string()),
                ("feature", pa.list_(pa.float32(), width)),
            ]
        )

    def fingerprint(self) -> str:
        """Hash what determines the features: plan, split, network and versions."""
        job = self.job
        return fingerprint_of([EMBED_VERSION, job.plan.fingerprint(), job.split, job.facts(), versions()])

    def source(self, inputs: Inputs) -> Source:  # noqa: ARG002
        """Return the split, in order and without augmentation."""
        return Batches(self.job.plan, View(split=self.job.split))

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:  # noqa: ARG002
        """Load the network; yields the function that computes the features of a batch.

        Raises:
            ModelError: the network cannot be loaded, does not accept the plan's images, or there is no such device.
        """
        import numpy as np
        import pyarrow as pa
        import torch

        from ...pipeline.export.result_index import SplitLookup
        from ..training.evaluation import parameter_dtype
        from ..training.train_batch import to_train_batch
        from ..zoo.device import torch_device
        from ..zoo.forward import run_model
        from .head_input import HeadInput

        job = self.job
        device = torch_device(job.device)
        model = job.load().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        index, schema = job.plan.load_index(), self.schema
        split_of = SplitLookup(index, job.split)
        with HeadInput(model) as head_input:

            def process(batch: Batch) -> pa.RecordBatch:
                used = np.flatnonzero(batch.is_valid)
                with torch.inference_mode():
                    run_model(model, to_train_batch(batch, device).inputs.to(parameter_dtype(model)))
                    features = head_input.take()[torch.from_numpy(used)].float().cpu().numpy()
                labels = batch.labels.numpy()[used]
                keys = [batch.keys[row] for row in used]
                width = schema.field("feature").type.list_size
                columns = [
                    pa.array(keys, pa.string()),
                    pa.array(labels),
                    pa.array([index.classes[label] if label >= 0 else None for label in labels], pa.string()),
                    pa.array([split_of(key) for key in keys], pa.string()),
                    pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), width),
                ]
                return pa.record_batch(columns, schema=schema)

            yield process


@lru_cache(maxsize=8)
def feature_width(spec: str) -> int:
    """Return the number of inputs of a network's classifier.

    Args:
        spec: a ``ModelSpec`` as JSON.

    Raises:
        ModelError: no such network.
    """
    from ..zoo.build import build_model
    from ..zoo.heads import head_module

    options = ModelSpec.model_validate_json(spec)
    plain = ModelSpec(name=options.name, weights="none", num_classes=options.num_classes)
    weight: Any = head_module(build_model(plain, warn=False))[1].weight
    return int(weight.shape[1])
