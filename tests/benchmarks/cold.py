"""``cold``: from the user's JPEGs to training batches, nothing kept from an earlier epoch."""

from __future__ import annotations

from pathlib import Path

from .benchmark import Benchmark, Contestant, Output, Ratio
from .photos import find_photos, is_plain_jpeg, link_photos, some

PEERS = (
    ("torchdata nodes", "threads:torchdata_nodes", "torchdata"),
    ("spdl", "threads:spdl", "spdl"),
    ("webdataset", "shards:webdataset_cv2", "webdataset"),
    ("torchvision.io", "torch_loader:torchvision_io", "torchvision"),
    ("albumentations", "torch_loader:albumentations", "albumentations"),
    ("torchvision pil", "torch_loader:torchvision_pil", "torchvision"),
    ("plain dali", "dali:plain", "nvidia.dali"),
    ("ray read_images", "ray_data:read_images", "ray"),
)
"""Name, target and package, the strongest first."""

ROWS: tuple[tuple[str, Output], ...] = (("", "float32"), (" uint8", "uint8"))

CONTESTANTS = (
    *(Contestant(f"ours{row}", "ours:feed", output) for row, output in ROWS),
    Contestant("floor", "dali:floor", "decoded"),
    *(
        Contestant(f"{peer}{row}", target, output, needs)
        for peer, target, needs in PEERS
        for row, output in ROWS
    ),
)

RATIOS = tuple(
    Ratio(f"{peer}{row}", f"ours{row}", "floor" if peer == "floor" else f"{peer}{row}")
    for row, _ in ROWS
    for peer in ("floor", *(peer for peer, _, _ in PEERS))
)


def prepare(data: Path, scratch: Path) -> tuple[str, ...]:
    """Link the JPEGs that all contestants take alike."""
    return link_photos(some(find_photos(data, is_plain_jpeg), "JPEG photos", data), scratch / "photos")


BENCH = Benchmark(
    name="cold",
    about="JPEG files -> RandomResizedCrop 224 + flip -> batches of 64; 2 threads or worker processes each",
    unit="images/s",
    contestants=CONTESTANTS,
    ratios=RATIOS,
    prepare=prepare,
)
