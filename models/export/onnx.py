"""ONNX export: one graph from the pixels of a picture to probabilities, with resize, crop and normalisation inside.

Those of a segmentation network are a map for each class, of the network's size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...pipeline.atomic_io import write_bytes
from ...pipeline.errors import ModelError, RequestError, RunError
from ...pipeline.warning_filter import ignored_warnings
from ..inference.masks.predictor import MaskPredictor
from ..inference.outputs import Outputs
from ..inference.predictor import Predictor, load
from ..zoo.checkpoint_file import first_line
from .preprocess import Preprocess, preprocess_of

INPUT, OUTPUT = "images", "probabilities"
CHECKED_SIZES = ((480, 640), (600, 450), (333, 500), (250, 250))
"""Heights and widths of the made pictures that the exported graph is compared on."""
MAX_DIFFERENCE = 1e-3
"""Difference of probabilities above which the export counts as failed."""
MAX_BYTES = 2_000_000_000
"""ONNX files cannot be larger."""


@dataclass(frozen=True)
class Exported:
    """An ONNX file and how it compares."""

    path: Path
    num_bytes: int
    largest_difference: float | None
    """Of probabilities between ONNX Runtime and torch, on made pictures; None if ONNX Runtime is not installed."""


class PixelsToProbabilities(torch.nn.Module):
    """Preprocessing, network, and softmax or sigmoid in one module.

    Args:
        preprocess: the plan's transforms.
        model: the network.
        outputs: meaning of a classifier's outputs; None for a segmentation network.
    """

    def __init__(self, preprocess: Preprocess, model: torch.nn.Module, outputs: Outputs | None) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.model = model
        self.outputs = outputs

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of uint8 RGB images, shape (N, H, W, 3): (N, classes), or (N, classes, h, w)."""
        logits: torch.Tensor = self.model(self.preprocess(images))
        if self.outputs is None:
            return logits.softmax(dim=1)
        if self.outputs.several:
            return logits.sigmoid()
        return (logits / self.outputs.temperature).softmax(dim=1)


def export_onnx(checkpoint: Path | str, path: Path | str, *, allow_import: Sequence[str] = ()) -> Exported:
    """Write a trained network with its preprocessing as one ONNX graph, and compare it with torch on made pictures.

    The graph takes ``images``, uint8 RGB pixels of shape (N, H, W, 3) with any N, H and W, and yields ``probabilities``,
    float32 of shape (N, classes), or (N, classes, h, w) in the network's size for segmentation. The names of the
    classes are in its metadata, as JSON under ``classes``.

    Args:
        checkpoint: a checkpoint of ``lightwell train``.
        path: the ONNX file.
        allow_import: modules that transforms of its plan may be imported from.

    Raises:
        PlanError: a transform of the plan has no counterpart in ONNX; names it.
        ModelError: the network cannot be exported.
        RequestError: the packages of the extra ``onnx`` are not installed.
        RunError: the exported graph differs from torch.
        OutputError: the file cannot be written.
    """
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise RequestError(
                f"export: expected the package {package}, got none; run: pip install 'lightwell[onnx]'"
            )
    predictor = load(checkpoint, device="cpu", allow_import=allow_import)
    outputs = None if isinstance(predictor, MaskPredictor) else predictor.outputs
    module = PixelsToProbabilities(preprocess_of(predictor.program), predictor.model, outputs).eval()
    content = _export(module, predictor)
    difference = _largest_difference(content, predictor)
    if difference is not None and not difference <= MAX_DIFFERENCE:
        raise RunError(
            f"export: expected probabilities within {MAX_DIFFERENCE:g} of torch's, got a difference of {difference:.3g}; nothing is "
            "written: report the model and its transforms"
        )
    write_bytes(path, content)
    return Exported(Path(path), len(content), difference)


def _export(module: PixelsToProbabilities, predictor: Predictor | MaskPredictor) -> bytes:
    images = torch.zeros(2, *CHECKED_SIZES[0], 3, dtype=torch.uint8)
    height, width = torch.export.Dim("height", min=2), torch.export.Dim("width", min=2)
    shapes = {0: torch.export.Dim("batch", min=1), 1: height, 2: width}
    try:
        with ignored_warnings(), torch.inference_mode():
            program = torch.onnx.export(
                module,
                (images,),
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=(shapes,),
            )
    except Exception as error:  # torch's exporter raises errors of many kinds
        reason = first_line(error.__cause__ or error)
        raise ModelError(
            f"export: expected a network that torch can export, got {type(predictor.model).__name__} ({type(error).__name__}: {reason}); "
            "its weights for torch are in best.safetensors"
        ) from error
    assert program is not None
    proto: Any = program.model_proto
    facts = {"classes": json.dumps(predictor.classes), "producer": f"lightwell {version('lightwell')}"}
    if isinstance(predictor, Predictor):
        facts["temperature"] = repr(predictor.temperature)
        facts["thresholds"] = json.dumps(predictor.outputs.thresholds)
    for key, value in facts.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    if proto.ByteSize() > MAX_BYTES:
        raise ModelError(
            f"export: expected a network of at most {MAX_BYTES:,} bytes, got {proto.ByteSize():,}; choose a smaller one"
        )
    return bytes(proto.SerializeToString())


def _largest_difference(content: bytes, predictor: Predictor | MaskPredictor) -> float | None:
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    differences = []
    for number, size in enumerate(CHECKED_SIZES):
        picture = made_picture(number, *size)
        (found,) = session.run([OUTPUT], {INPUT: picture[None]})
        differences.append(float(np.abs(found[0] - probabilities_of(predictor, picture)).max()))
    return max(differences)


def probabilities_of(predictor: Predictor | MaskPredictor, picture: np.ndarray) -> np.ndarray:
    """Return the probabilities of a picture from torch, as the graph has them for one."""
    if isinstance(predictor, MaskPredictor):
        return predictor.probabilities(picture)
    return np.asarray(predictor(picture).probabilities[0])


def made_picture(seed: int, height: int, width: int) -> np.ndarray:
    """Return a picture of smooth shapes and some noise: uint8 RGB, shape (height, width, 3)."""
    generator = np.random.default_rng(seed)
    down, across = np.mgrid[0:height, 0:width] / 40.0
    phases = generator.uniform(0, 6, (3, 4))
    waves = [
        np.sin(down * one + other) + np.cos(across * third + fourth) for one, other, third, fourth in phases
    ]
    noise = generator.normal(0, 8, (height, width, 3))
    return np.clip(np.stack(waves, axis=-1) * 60 + 128 + noise, 0, 255).astype(np.uint8)
