"""Images with activations of a frozen network, probes of them, and the table that an audit of a probe searches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...explain.maps import is_empty
from ...features.probe_heads import LinearHead, logistic_heads
from ..gradcam.cells import Cells, cell_arrays
from ..gradcam.features import FeatureProjection
from ..gradcam.suspects.image_table import ImageTable, evidence_shares, sum_cells

if TYPE_CHECKING:
    from numpy.typing import NDArray

STRENGTH = 0.1
"""Inverse strength of the penalty of a probe, scikit-learn's ``C`` for standardized features."""


@dataclass(frozen=True)
class ImagePool:
    """Labelled images as the network sees them."""

    keys: NDArray[np.object_]
    labels: NDArray[np.int64]
    names: Sequence[str]
    """Names of the classes by number."""
    images: NDArray[np.uint8]
    """(N, H, W, 3), RGB."""
    activations: torch.Tensor
    """(N, C, h, w), float32."""


def fit_probe(activations: torch.Tensor, labels: NDArray[np.int64], num_classes: int) -> LinearHead:
    """Fit a logistic regression of the pooled activations (N, C, h, w)."""
    pooled = activations.mean((2, 3)).numpy()
    (head,) = logistic_heads(pooled, labels, num_classes, (STRENGTH,))
    return head


def probabilities(head: LinearHead, activations: torch.Tensor) -> NDArray[np.float64]:
    """Return the probabilities (N, K) of a probe."""
    return np.asarray(np.exp(head.log_probabilities(activations.mean((2, 3)).numpy())))


def class_maps(head: LinearHead, activations: torch.Tensor, classes: NDArray[np.int64]) -> torch.Tensor:
    """Return the signed maps (N, h, w) of one class per image: ``sum_c W_kc A_c / (h w)``, as Grad-CAM of a linear head."""
    weights = torch.from_numpy(head.weight[classes]).float()
    return torch.einsum("nchw,nc->nhw", activations, weights) / activations[0, 0].numel()


def probe_table(
    pool: ImagePool, rows: NDArray[np.intp], activations: torch.Tensor, head: LinearHead, seed: int
) -> ImageTable:
    """Return the table that an audit of the probe on some images would search.

    Args:
        pool: of the images.
        rows: of the audited images.
        activations: of these images, which may carry marks.
        head: the probe.
        seed: of the plan.
    """
    order = np.argsort(pool.keys[rows], kind="stable")
    rows, activations = rows[order], activations[torch.from_numpy(order)]
    labels, found = pool.labels[rows], probabilities(head, activations)
    predictions = found.argmax(axis=1)
    maps = class_maps(head, activations, labels).clamp_min(0)
    scores = torch.from_numpy(np.log(np.maximum(found[np.arange(len(rows)), labels], 1e-12)))
    shown = maps.numpy().copy()
    shown[is_empty(maps, scores).numpy()] = np.nan
    evidence = class_maps(head, activations, predictions).clamp_min(0)
    weights = evidence / evidence.sum((1, 2), keepdim=True)
    project = FeatureProjection(seed)
    return ImageTable(
        keys=pool.keys[rows],
        classes=labels,
        by_label=True,
        labels=labels,
        predictions=predictions,
        confidences=found.max(axis=1).astype(np.float32),
        shares=evidence_shares(sum_cells(shown)),
        map_size=(int(shown.shape[1]), int(shown.shape[2])),
        features=_floats(project(activations.mean((2, 3)))),
        evidence_features=_floats(project(torch.einsum("nchw,nhw->nc", activations, weights).nan_to_num())),
        names=pool.names,
        seed=seed,
        cells=Cells(np.arange(len(rows)), *cell_arrays(activations, torch.from_numpy(head.weight), project)),
    )


def _floats(values: NDArray[Any]) -> NDArray[np.float32]:
    return values.astype(np.float32)
