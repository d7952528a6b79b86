"""On a GPU everything that touches a picture stays there; only arguments are on the host."""

from __future__ import annotations

from typing import Any

import pytest

from .parity import graph_of
from .test_crops import BOXED_CROPS, CROPS, PADS, RESIZES
from .test_distortions import DISTORTIONS, PIECEWISE
from .test_drops import DROPS
from .test_flips import FLIPS
from .test_warps import WARPS

TRANSFORMS = [*CROPS, *BOXED_CROPS, *RESIZES, *PADS, *FLIPS, *WARPS, *DROPS, *DISTORTIONS, PIECEWISE]
ON_THE_HOST = {"conditional__ValidateLogical", "conditional__Split", "conditional__Not_", "conditional__Merge"}
"""What becomes of the flags and arguments."""


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
def test_what_touches_pictures_sits_on_the_gpu(transform: Any) -> None:
    placements = graph_of([transform], "gpu").placements()
    print(placements)
    for placement in placements:
        if placement.operator not in ON_THE_HOST:
            assert placement.device == "gpu", placement
