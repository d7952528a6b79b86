"""``gradcam``: maps of a class beside the forward pass alone, Captum and pytorch-grad-cam."""

from __future__ import annotations

from .benchmark import Benchmark, Contestant, Ratio
from .cold import prepare

BENCH = Benchmark(
    name="gradcam",
    about="Grad-CAM of the predicted class, batches of 32 images of 224 px in memory, 2 threads; ResNet-50 where no network is "
    "named; the forward pass in the faster memory layout of this machine; freed memory is kept, as audits "
    "keep it; every contestant's maps are compared first",
    unit="images/s",
    contestants=(
        Contestant("ours", "explaining:ours"),
        Contestant("forward", "explaining:forward"),
        Contestant("captum", "explaining:captum", needs="captum"),
        Contestant("pytorch-grad-cam", "explaining:pytorch_grad_cam", needs="pytorch_grad_cam"),
        Contestant("ours bf16", "explaining:ours_bf16"),
        Contestant("forward bf16", "explaining:forward_bf16"),
        Contestant("ours vit-s", "explaining:ours_vit"),
        Contestant("forward vit-s", "explaining:forward_vit"),
        Contestant("ours swin-t", "explaining:ours_swin"),
        Contestant("forward swin-t", "explaining:forward_swin"),
    ),
    ratios=(
        Ratio("forward", "ours", "forward"),
        Ratio("captum", "ours", "captum"),
        Ratio("pytorch-grad-cam", "ours", "pytorch-grad-cam"),
        Ratio("forward bf16", "ours bf16", "forward bf16"),
        Ratio("float32 bf16", "ours bf16", "ours"),
        Ratio("forward vit-s", "ours vit-s", "forward vit-s"),
        Ratio("forward swin-t", "ours swin-t", "forward swin-t"),
    ),
    prepare=prepare,
    batch_size=32,
    streams=False,
)
