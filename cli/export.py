"""``lightwell export``: a trained model for use without Lightwell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import AllowImport, Json, Quiet
from .output import print_json


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint of a training, such as train/best.safetensors.")
    ],
    onnx: Annotated[Path, typer.Option(help="ONNX file to write.")],
    allow_import: AllowImport = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write network, preprocessing and softmax as one ONNX graph: pixels of any size in, probabilities out.

    The graph is compared with torch on made pictures. The checkpoint itself is a safetensors file of the network's weights,
    which torchvision, timm and other tools load.

    Example: lightwell export runs/cells/best.safetensors --onnx cells.onnx
    """
    from ..models.export.onnx import export_onnx

    found = export_onnx(checkpoint, onnx, allow_import=allow_import or ())
    difference = found.largest_difference
    if as_json:
        print_json({"path": str(found.path), "bytes": found.num_bytes, "largest_difference": difference})
    elif not quiet:
        compared = "not compared with torch, as onnxruntime is not installed"
        if difference is not None:
            compared = f"largest difference of a probability from torch: {difference:.2g}"
        print(f"wrote {found.path} ({found.num_bytes / 1e6:.1f} MB); {compared}")
