"""``train``: what feeding costs a network that is fine-tuned.

On a CPU decoding and step share the processors, so that ``ours`` is slower than ``in memory`` by what decoding costs. The
processor time of training with a feed is therefore compared with that of the step and of the feed, each measured alone.
"""

from __future__ import annotations

from .benchmark import Benchmark, Contestant, Ratio
from .cold import prepare

CPU = "ms of processor time an image"

BENCH = Benchmark(
    name="train",
    about="steps of fine-tuning all of ResNet-18 on RandomResizedCrop 224 + flip; 2 threads, or threads and worker processes",
    unit="images/s",
    contestants=(
        Contestant("ours", "training:ours", "float32"),
        Contestant("in memory", "training:in_memory", "float32"),
        Contestant("torchvision", "training:torchvision", "float32", "torchvision"),
        Contestant("ours, processor", "training:ours_cpu", "float32", unit=CPU),
        Contestant("step and feed, processor", "training:parts_cpu", "float32", unit=CPU),
    ),
    ratios=(
        Ratio("in memory", "in memory", "ours"),
        Ratio("torchvision", "ours", "torchvision"),
        Ratio("step and feed", "ours, processor", "step and feed, processor"),
    ),
    prepare=prepare,
    batch_size=32,
    streams=False,
)
