"""``cached``: epochs after the first, out of the cache, and what filling it costs.

The same crop and flip as in ``cold``, behind a shorter side of 256. torch's DataLoader reads the JPEGs, as it has
nothing else; FFCV reads a file of its own, longest side 256 and so fewer pixels. ``ours filling uint8`` opens a feed
with a new cache for every epoch and deletes the one before, ``ours single epochs uint8`` one without a cache.
"""

from __future__ import annotations

from .benchmark import Benchmark, Contestant, Ratio
from .cold import ROWS, prepare

CONTESTANTS = (
    *(Contestant(f"ours{row}", "ours_cached:warm", output) for row, output in ROWS),
    *(Contestant(f"ours cold{row}", "ours_cached:cold", output) for row, output in ROWS),
    Contestant("ours filling uint8", "ours_cached:filling"),
    Contestant("ours single epochs uint8", "ours_cached:single_epochs"),
    *(
        Contestant(f"torchvision.io{row}", "torch_loader:torchvision_io", output, "torchvision")
        for row, output in ROWS
    ),
    *(Contestant(f"ffcv raw{row}", "ffcv_raw:beton", output, "ffcv") for row, output in ROWS),
)

RATIOS = (
    *(
        Ratio(f"{key}{row}", f"ours{row}", f"{name}{row}")
        for row, _ in ROWS
        for key, name in (
            ("torchvision.io", "torchvision.io"),
            ("own cold", "ours cold"),
            ("ffcv raw", "ffcv raw"),
        )
    ),
    Ratio("filling vs no cache", "ours filling uint8", "ours single epochs uint8"),
)


BENCH = Benchmark(
    name="cached",
    about="shorter side 256, cached -> RandomResizedCrop 224 + flip -> batches of 64; 2 threads or workers each",
    unit="images/s",
    contestants=CONTESTANTS,
    ratios=RATIOS,
    prepare=prepare,
)
