"""Names of the attribution methods, and whether they can run here; imports nothing heavy."""

from __future__ import annotations

from typing import Literal, get_args

from ....pipeline.errors import PlanError

Method = Literal["integrated_gradients", "gradient_shap", "lime", "kernel_shap", "occlusion"]
METHODS: tuple[Method, ...] = get_args(Method)


def check_captum() -> None:
    """Check that Captum is installed.

    Raises:
        PlanError: it is not.
    """
    from importlib.util import find_spec

    if find_spec("captum") is None:
        raise PlanError(
            "second_opinions: expected Captum, which computes them, got an environment without it; "
            "run pip install 'lightwell[explain]', or remove the key"
        )
