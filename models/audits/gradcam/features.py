"""Features of an image for clustering: mean activations of the target layer, at a fixed length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ....pipeline.rng import derive_seed, numpy_generator
from .records import NUM_FEATURES

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_FLOAT16 = 65504.0


@dataclass(frozen=True, slots=True)
class FeatureProjection:
    """Reduces channels to ``NUM_FEATURES`` by a random Gaussian matrix, which keeps distances.

    Johnson and Lindenstrauss, "Extensions of Lipschitz mappings into a Hilbert space", 1984. Narrower layers are padded
    with zeros, so that their values stay as they are.
    """

    seed: int
    matrices: dict[int, torch.Tensor] = field(default_factory=dict, repr=False)

    def __call__(self, features_nc: torch.Tensor) -> NDArray[np.float16]:
        """Return features (N, channels) as (N, NUM_FEATURES)."""
        channels = features_nc.shape[1]
        if channels <= NUM_FEATURES:
            fixed = torch.nn.functional.pad(features_nc, (0, NUM_FEATURES - channels))
        else:
            fixed = features_nc @ self._matrix(channels)
        return fixed.clamp(-MAX_FLOAT16, MAX_FLOAT16).half().numpy()

    def columns(
        self, activations_nchw: torch.Tensor, evidence: torch.Tensor, chosen: NDArray[np.bool_]
    ) -> dict[str, list[Any]]:
        """Return the columns ``features`` and ``evidence_features`` of a batch.

        Args:
            activations_nchw: output of the target layer.
            evidence: rectified maps (N, h, w) of the predictions, on the CPU.
            chosen: rows with evidence.
        """
        activations = activations_nchw.float()
        weights = (evidence / evidence.sum((1, 2), keepdim=True)).to(activations.device)
        weighted = torch.einsum("nchw,nhw->nc", activations, weights)
        of_evidence = self(weighted.cpu())
        return {
            "features": list(self(activations.mean((2, 3)).cpu())),
            "evidence_features": [
                row if one else None for row, one in zip(of_evidence, chosen.tolist(), strict=True)
            ],
        }

    def _matrix(self, channels: int) -> torch.Tensor:
        if channels not in self.matrices:
            generator = numpy_generator(derive_seed("maps", self.seed, 0, f"features {channels}"))
            drawn = generator.standard_normal((channels, NUM_FEATURES), dtype=np.float32)
            self.matrices[channels] = torch.from_numpy(drawn) / NUM_FEATURES**0.5
        return self.matrices[channels]
