"""Second opinions as the report shows them: their maps beside that of the audit, with their agreement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ....explain.attribution.opinions import SHOWN
from ..pictures import heat_layer

if TYPE_CHECKING:
    import pyarrow as pa

METHOD_NAMES = {
    "integrated_gradients": "Integrated gradients",
    "gradient_shap": "Gradient SHAP",
    "lime": "LIME",
    "kernel_shap": "Kernel SHAP",
    "occlusion": "Occlusion",
}


@dataclass(frozen=True, slots=True)
class OpinionPanel:
    """Attribution of an image by another method."""

    name: str
    heat: str
    """Positive attribution as a data URI; an empty string if there is none."""
    agreement: str
    """With the map of the audit."""


def draw_opinions(records: pa.Table | None) -> dict[str, tuple[OpinionPanel, ...]]:
    """Draw the second opinions by key, in the order of the records; None has none."""
    found: dict[str, list[OpinionPanel]] = {}
    for row in () if records is None else records.to_pylist():
        positive = np.asarray(row["attribution"], np.float32).reshape(SHOWN, SHOWN).clip(min=0)
        correlation = row["rank_correlation"]
        panel = OpinionPanel(
            METHOD_NAMES.get(row["method"], row["method"]),
            heat_layer(positive) if positive.any() else "",
            "constant" if correlation is None else f"rank correlation {correlation:.2f}",
        )
        found.setdefault(row["key"], []).append(panel)
    return {key: tuple(panels) for key, panels in found.items()}
