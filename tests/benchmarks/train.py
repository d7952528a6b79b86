"""``train``: what feeding costs a network that is fine-tuned."""

from __future__ import annotations

from .benchmark import Benchmark, Contestant, Ratio
from .cold import prepare

BENCH = Benchmark(
    name="train",
    about="steps of fine-tuning all of ResNet-18 on RandomResizedCrop 224 + flip; 2 threads, or threads and worker processes",
    unit="images/s",
    contestants=(
        Contestant("ours", "training:ours", "float32"),
        Contestant("in memory", "training:in_memory", "float32"),
        Contestant("torchvision", "training:torchvision", "float32", "torchvision"),
    ),
    ratios=(Ratio("in memory", "in memory", "ours"), Ratio("torchvision", "ours", "torchvision")),
    prepare=prepare,
    batch_size=32,
    streams=False,
)
