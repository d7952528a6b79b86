"""Attribution methods of Captum, batched and seeded, each a function of one image.

=================== ======================================================================== ===================== ==========
method              paper                                                                    images through model  backward
=================== ======================================================================== ===================== ==========
integrated_         Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML     ``IG_STEPS``          yes
gradients           2017, equation 3
gradient_shap       Lundberg and Lee, "A Unified Approach to Interpreting Model              ``SHAP_GRADIENTS``    yes
                    Predictions", NeurIPS 2017: expected gradients
lime                Ribeiro et al., "Why Should I Trust You?", KDD 2016, equation 1          ``SEGMENT_SAMPLES``   no
kernel_shap         Lundberg and Lee 2017, theorem 2                                         ``SEGMENT_SAMPLES``   no
occlusion           Zeiler and Fergus, "Visualizing and Understanding Convolutional          169                   no
                    Networks", ECCV 2014, section 4.2
=================== ======================================================================== ===================== ==========

All explain the logit of a class, as the maps do; a few more passes compute the score of the unchanged image.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..perturb.fill import blur
from .names import Method, check_captum

if TYPE_CHECKING:
    from numpy.typing import NDArray

Model = Callable[[torch.Tensor], torch.Tensor]
"""Maps images (N, C, H, W) to logits (N, K)."""

BATCH = 16
"""Images that go through the model at once."""
IG_STEPS = 32
SHAP_GRADIENTS = 16
SHAP_NOISE = 0.1
"""Standard deviation of the noise of Gradient SHAP, in units of the image's own."""
SEGMENT_SAMPLES = 256
"""Images with some segments removed; about five for each of `SEGMENTS`."""
SEGMENTS = 49
"""Segments of LIME and Kernel SHAP, about the cells of a map."""
WINDOWS = 7
"""Occlusion hides a window of this fraction of each side, moved by half of it."""


@dataclass(frozen=True, slots=True)
class Question:
    """An attribution that is asked for: one image and class."""

    image: torch.Tensor
    """(1, C, H, W), input of the model."""
    output: int
    baseline: torch.Tensor
    """The image without content, (1, C, H, W); see ``perturb.fill_constant``."""
    segments: torch.Tensor
    """int64 (H, W), numbered from 0; for LIME and Kernel SHAP."""
    seed: int


def attribute(model: Model, method: Method, question: Question) -> NDArray[np.float32]:
    """Return the attribution of each pixel (H, W), the sum over channels; positive values speak for the class.

    Args:
        model: in eval mode; called with at most `BATCH` images at once.
        method: one of `names.METHODS`.
        question: the image, its class and the seed, on which the result depends, not on the state of any generator.

    Raises:
        PlanError: Captum is not installed.
    """
    check_captum()
    with seeded(question.seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Captum: progress, deprecations of its dependencies
        found = _FUNCTIONS[method](model, question)
    return found.detach().float().sum(dim=1)[0].cpu().numpy()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of torch and NumPy, which Captum uses, and restore them on exit."""
    numpy_state = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**63)
            np.random.seed(seed % 2**32)
            yield
    finally:
        np.random.set_state(numpy_state)


def _integrated_gradients(model: Model, question: Question) -> torch.Tensor:
    from captum.attr import IntegratedGradients

    found: torch.Tensor = IntegratedGradients(model).attribute(
        question.image,
        baselines=question.baseline,
        target=question.output,
        n_steps=IG_STEPS,
        internal_batch_size=BATCH,
    )
    return found


def _gradient_shap(model: Model, question: Question) -> torch.Tensor:
    from captum.attr import GradientShap

    blurred = blur(question.image, 0.1 * min(question.image.shape[2:]))
    found: torch.Tensor = GradientShap(model).attribute(
        question.image,
        baselines=torch.cat((question.baseline, blurred)),
        target=question.output,
        n_samples=SHAP_GRADIENTS,
        stdevs=SHAP_NOISE * float(question.image.std()),
    )
    return found


def _lime(model: Model, question: Question) -> torch.Tensor:
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import Lime

    return _by_segments(Lime(model, interpretable_model=SkLearnRidge(alpha=1.0)), question)


def _kernel_shap(model: Model, question: Question) -> torch.Tensor:
    from captum.attr import KernelShap

    return _by_segments(KernelShap(model), question)


def _by_segments(method: Any, question: Question) -> torch.Tensor:
    """Attribute segments; a segment's value is divided by its pixels, so that sums over places compare."""
    with torch.no_grad():
        found: torch.Tensor = method.attribute(
            question.image,
            baselines=question.baseline,
            target=question.output,
            feature_mask=question.segments[None, None].to(question.image.device),
            n_samples=SEGMENT_SAMPLES,
            perturbations_per_eval=BATCH,
        )
    sizes = torch.bincount(question.segments.flatten())[question.segments].to(found)
    return found[:, :1] / sizes


def _occlusion(model: Model, question: Question) -> torch.Tensor:
    from captum.attr import Occlusion

    channels, height, width = question.image.shape[1:]
    window = max(1, -(-height // WINDOWS)), max(1, -(-width // WINDOWS))
    with torch.no_grad():
        found: torch.Tensor = Occlusion(model).attribute(
            question.image,
            baselines=question.baseline,
            target=question.output,
            sliding_window_shapes=(channels, *window),
            strides=(channels, *(max(1, side // 2) for side in window)),
            perturbations_per_eval=BATCH,
        )
    return found


_FUNCTIONS: dict[Method, Callable[[Model, Question], torch.Tensor]] = {
    "integrated_gradients": _integrated_gradients,
    "gradient_shap": _gradient_shap,
    "lime": _lime,
    "kernel_shap": _kernel_shap,
    "occlusion": _occlusion,
}
