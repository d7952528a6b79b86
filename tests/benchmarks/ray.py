"""``ray``: what it costs that batches come from a cluster, on the same cores, and where the time goes."""

from __future__ import annotations

from .benchmark import Benchmark, Contestant, Ratio
from .cold import prepare

CONTESTANTS = (
    Contestant("local", "ours:feed"),
    Contestant("ours ray", "ours_ray:feed"),
    Contestant("ours ray colocated", "ours_ray:colocated"),
    Contestant("ray read_images", "ray_data:read_images", needs="ray"),
    Contestant("ours: first batch", "ours_ray:first_batch", unit="s"),
    Contestant("ours: epoch start", "ours_ray:epoch_start", unit="waits of a batch"),
    Contestant("ours: workers wait", "ours_ray:workers_wait", unit="%"),
    Contestant("ours: taking over", "ours_ray:taking_over", unit="%"),
    Contestant("ours: CPU of this process", "ours_ray:driver_cpu", unit="%"),
    Contestant("ours: CPU of Ray's own", "ours_ray:ray_cpu", unit="%"),
)
"""Rows in images a second, then what Ray costs step by step."""

RATIOS = (
    Ratio("local", "ours ray", "local"),
    Ratio("local colocated", "ours ray colocated", "local"),
    Ratio("ray read_images", "ours ray", "ray read_images"),
    Ratio("first batch", "ours: first batch", 1.0),
    Ratio("epoch start", "ours: epoch start", 1.0),
)

BENCH = Benchmark(
    name="ray",
    about="JPEG files -> RandomResizedCrop 224 + flip -> uint8 batches of 64 that come from Ray; 2 CPUs, this machine",
    unit="images/s",
    contestants=CONTESTANTS,
    ratios=RATIOS,
    prepare=prepare,
)
