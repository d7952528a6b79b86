"""How far a dataset is from the images that the chosen weights were trained on, without any of these images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...findings.finding import Advice, Effect, Finding, Null, finding_id
from ..severity import severity_of

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from ..dataset_table import DatasetTable

NEAR, FAR = 0.25, 0.4
"""Gaps from which on a dataset is different and very different. For scale, measured with timm's weights of tf_efficientnet_lite0:
photos of ImageNet's validation split 0.12, product photos of clothing 0.17, raccoons 0.19, scenes of streets 0.29, gray
electroluminescence images of solar cells 0.52, noise 0.66. Of other networks the values differ, their order should not."""
MIN_IMAGES = 50
"""With 50 images of the same data the gap is 0.01 larger than with 500."""
MIN_BATCHES = 4
NUM_BOOTSTRAP = 200


@dataclass(frozen=True)
class DomainGap:
    """Distance between the inputs of a network's normalization layers on a dataset and in training."""

    value: float
    """In standard deviations of the training data: the mean over layers of the median over channels."""
    low: float | None
    high: float | None
    """Where 95 % of the values lie if the batches are drawn again; None with few batches."""
    num_images: int


def measure_gap(statistics: pa.Table) -> DomainGap | None:
    """Measure the gap by the records of the stage ``domain``; None without normalization layers or with few images.

    Of each channel it is the 2-Wasserstein distance between normal distributions: the root of the squared differences of means and
    of standard deviations (Dowson and Landau, 1982).
    """
    layers: dict[str, list[tuple[int, NDArray[np.float64]]]] = {}
    for row in statistics.to_pylist():
        values = np.array([row["sums"], row["squares"]])
        layers.setdefault(row["layer"], []).append((row["num_images"], values))
    parts = [
        (np.array([num for num, _ in rows], np.float64), np.stack([values for _, values in rows]))
        for rows in layers.values()
    ]
    if not parts or (num_images := int(parts[0][0].sum())) < MIN_IMAGES:
        return None
    num_batches = min(len(counts) for counts, _ in parts)
    value = float(np.mean([_distance(np.ones((1, len(counts))), counts, sums)[0] for counts, sums in parts]))
    if num_batches < MIN_BATCHES:
        return DomainGap(value, None, None, num_images)
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(num_batches, np.full(num_batches, 1 / num_batches), NUM_BOOTSTRAP)
    gaps = np.mean(
        [_distance(drawn, counts[:num_batches], sums[:num_batches]) for counts, sums in parts], axis=0
    )
    low, high = np.quantile(gaps, (0.025, 0.975)).tolist()
    return DomainGap(value, min(low, value), max(high, value), num_images)


def find_domain_gap(table: DatasetTable, gap: DomainGap | None) -> list[Finding]:
    """Return a finding about the gap; empty without one."""
    if gap is None:
        return []
    words, advice = _words(gap.value)
    return [
        Finding(
            id=finding_id("domain_gap", ""),
            kind="domain_gap",
            severity=severity_of("domain_gap", "distance", gap.value),
            class_name=None,
            class_number=-1,
            group=None,
            sentence=f"To the network the images are {words} those that it was trained on: the inputs of its layers differ by "
            f"{gap.value:.2f} standard deviations in the median channel (with tf_efficientnet_lite0, other photos of ImageNet 0.12, "
            "product photos 0.17, gray images of solar cells 0.52).",
            effect=Effect(gap.value, "standard deviations", gap.low, gap.high),
            null=Null(None),
            num_images=len(table),
            num_concerned=gap.num_images,
            keys=(),
            advice=Advice(advice),
        )
    ]


def _words(gap: float) -> tuple[str, str]:
    """Return what is said of a gap, and the advice."""
    if gap < NEAR:
        return "like", (
            "Frozen features should do: try a probe first, then fine-tune the last blocks (fine_tune_from)."
        )
    check = "Check first that the plan prepares the images as the weights expect."
    if gap < FAR:
        return "different from", f"{check} Fine-tune the later half of the blocks or all of them."
    return "very different from", (
        f"{check} Fine-tune all blocks; findings from features of this network are less certain, and weights trained on images "
        "closer to these may serve better."
    )


def _distance(
    weights: NDArray[np.number], counts: NDArray[np.float64], sums: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the median distance of a layer's channels, (R,).

    Args:
        weights: how often each batch counts, (R, B).
        counts: images of each batch, (B,).
        sums: means and mean squares of its images, summed up, (B, 2, C).
    """
    moments = np.einsum("rb,bmc->mrc", weights, sums) / (weights @ counts)[:, None]
    deviations = np.sqrt(np.maximum(moments[1] - moments[0] ** 2, 0))
    return np.asarray(np.median(np.hypot(moments[0], deviations - 1), axis=1), np.float64)
