"""System check: versions, CPUs, decoders, and accuracy and throughput of each backend."""

from __future__ import annotations

import importlib.metadata
import platform
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..machine import num_cpus

PACKAGES = (
    "lightwell",
    "albumentations",
    "opencv-python-headless",
    "nvidia-dali-cuda130",
    "torch",
    "torchvision",
    "timm",
    "ray",
    "pyarrow",
)
NUM_PHOTOS = 96
PHOTO_SIZE = 375, 500
NUM_EPOCHS = 4
POLICY = [
    {"RandomResizedCrop": {"size": [224, 224]}},
    "HorizontalFlip",
    {"Rotate": {"limit": [-20, 20], "p": 0.5}},
    {"RandomBrightnessContrast": {"p": 0.5}},
    {"GaussianBlur": {"p": 0.3}},
    {"CoarseDropout": {"p": 0.3}},
]
"""Common transforms, all with a DALI lowering."""


def run_checks() -> dict[str, Any]:
    """Collect versions and hardware, and compare and benchmark decoders and backends.

    Returns:
        ``python``, ``cores``, ``versions``, ``gpu`` (name or None), ``decoders`` (``ok`` with the largest difference from
        OpenCV, or an error, for each decoder) and ``ways`` (for each backend ``max_levels`` and ``mean_levels``, the
        largest and mean difference from Albumentations on fully decoded images, and ``images_per_second``; or ``error``).
    """
    import torch

    versions: dict[str, str] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "cores": num_cpus(),
        "versions": versions,
        "gpu": gpu,
        "decoders": _check_decoders(),
        "ways": _check_backends(with_gpu=gpu is not None),
    }


def _check_decoders() -> dict[str, str]:
    import cv2

    from ..load.decode.dali import DaliDecoder, DaliFailure, DaliInput
    from ..load.decode.opencv import decode_opencv
    from ..load.decode.pillow import decode_pillow
    from ..load.decode.plan import full_region

    picture = make_photo(0, 64, 96)
    data = cv2.imencode(".jpg", picture)[1].tobytes()
    reference = decode_opencv(data).astype(int)
    found: dict[str, str] = {"opencv": "ok"}
    found["pillow"] = (
        f"ok, differs by at most {np.abs(decode_pillow(data, (64, 96)) - reference).max()} of 255"
    )
    dali = DaliDecoder(max_batch_size=1)
    try:
        (decoded,) = dali.decode([DaliInput("photo", data, full_region((64, 96)))])
    except ImportError as error:
        found["dali cpu"] = f"not usable: {error}"
        return found
    dali.close()
    found["dali cpu"] = (
        f"failed: {decoded.reason}"
        if isinstance(decoded, DaliFailure)
        else f"ok, differs by at most {np.abs(decoded - reference).max()} of 255"
    )
    return found


def make_photo(seed: int, height: int, width: int) -> np.ndarray:
    """Generate a photo-like image with low and high frequencies, uint8 HWC RGB."""
    import cv2

    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.random((rows, rows + 2, 3)), (width, height), interpolation=cv2.INTER_CUBIC) / depth
        for depth, rows in ((1.5, 4), (4, 24), (8, 90))
    ]
    return np.asarray(np.clip(np.sum(layers, axis=0) * 230, 0, 255), np.uint8)


def _check_backends(*, with_gpu: bool) -> dict[str, dict[str, Any]]:
    backends: dict[str, tuple[Literal["opencv", "dali"], Literal["cpu", "gpu"]]] = {
        "OpenCV": ("opencv", "cpu"),
        "DALI cpu": ("dali", "cpu"),
    }
    if with_gpu:
        backends["DALI gpu"] = ("dali", "gpu")
    with tempfile.TemporaryDirectory(prefix="lightwell-doctor-") as folder:
        index = _write_photos(Path(folder))
        reference = _reference(index)
        found = {}
        for name, (backend, device) in backends.items():
            try:
                found[name] = _check_backend(index, reference, backend, device)
            except (RuntimeError, ImportError) as error:  # a broken driver or library
                found[name] = {"error": " ".join(str(error).split())[:300]}
        return found


def _write_photos(folder: Path) -> Path:
    import cv2

    from ..index.build import build_index

    for number in range(NUM_PHOTOS):
        photo = make_photo(number, *PHOTO_SIZE)
        assert cv2.imwrite(str(folder / f"{number:03}.jpg"), photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    index = folder / "index.parquet"
    build_index(folder, fractions={"train": 1.0}).save(index)
    return index


def _plan(index: Path, device: str) -> Any:
    from ..plan.plan import Plan

    return Plan.model_validate(
        {"index": index, "augment": POLICY, "batch": {"size": 32}, "device": device, "decode": "exact"}
    )


def _reference(index: Path) -> dict[str, np.ndarray]:
    """Run Albumentations on fully decoded images, for epoch 0."""
    from ..compiler.program import Program
    from ..index.index import Index
    from ..load.decode.opencv import decode_opencv
    from ..rng import derive_seed, numpy_generator, python_random

    compose = Program.compile(_plan(index, "cpu")).compose(augment=True)
    finished = {}
    for row in Index.load(index).table.select(["key", "uri"]).to_pylist():
        seed = derive_seed("augment", 0, 0, row["key"])
        compose.set_random_state(numpy_generator(seed), python_random(seed))
        finished[row["key"]] = compose(image=decode_opencv(Path(row["uri"]).read_bytes()))["image"]
    return finished


def _check_backend(
    index: Path,
    reference: dict[str, np.ndarray],
    backend: Literal["opencv", "dali"],
    device: Literal["cpu", "gpu"],
) -> dict[str, Any]:
    from ..plan.view import View
    from ..runtime.local_engine import LocalEngine

    differences = []
    num_images, started = 0, 0.0
    with LocalEngine(backend=backend).feed(
        _plan(index, device), View(augment=True, num_epochs=NUM_EPOCHS)
    ) as feed:
        for batch in feed:
            if batch.epoch == 0:  # warm-up, with the random parameters of the reference
                for key, image in zip(batch.keys, batch.images.cpu().numpy(), strict=True):
                    differences.append(np.abs(image.astype(np.int16) - reference[key]))
                started = time.perf_counter()
            else:
                num_images += batch.num_images
        seconds = time.perf_counter() - started
    return {
        "max_levels": int(max(difference.max() for difference in differences)),
        "mean_levels": float(np.mean([difference.mean() for difference in differences])),
        "images_per_second": num_images / seconds,
    }
