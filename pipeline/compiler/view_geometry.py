"""Affine map from the pixels of a picture to those of the input that a plan's evaluation makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..geometry import Size
from ..transform.output_shapes import needs_pixels_reason
from ..transform.params import leaf_transforms
from ..warning_filter import ignored_warnings
from .program import Program

TOLERANCE = 1.0
"""Largest error of the affine map of a transform in pixels; more is no affine map."""
_FRACTIONS = (0.1, 0.5, 0.9)


def view_geometry(program: Program, size: Size) -> tuple[np.ndarray, Size] | None:
    """Return the affine map from an upright picture to the evaluation's output, and the size of that output.

    It is fitted to points that Albumentations' own transforms move, so that it holds for whatever combination of resizing,
    cropping, padding, turning and flipping a plan has.

    Args:
        program: the compiled plan.
        size: height and width of the picture.

    Returns:
        float64 (2, 3), from x, y to x, y; None where the geometry depends on pixels, is random or not affine.
    """
    import albumentations

    matrix = np.eye(3)
    for path, spec in program.specs(augment=False):
        transform = spec.build(path)
        leaves = list(leaf_transforms([transform]))
        if all(isinstance(leaf, albumentations.ImageOnlyTransform) for leaf in leaves):
            continue
        found = (
            None if any(map(needs_pixels_reason, leaves)) else _affine_map(albumentations, transform, size)
        )
        if found is None:
            return None
        step, size = found
        matrix = step @ matrix
    return matrix[:2], size


def _affine_map(albumentations: Any, transform: Any, size: Size) -> tuple[np.ndarray, Size] | None:
    """Fit the affine map (3, 3) of one transform to moved points; returns it with the size of the output."""
    height, width = size
    points = np.array([(x * width, y * height) for y in _FRACTIONS for x in _FRACTIONS], np.float32)
    with ignored_warnings():
        compose = albumentations.Compose(
            [transform], keypoint_params=albumentations.KeypointParams(format="xy", remove_invisible=False)
        )
        try:
            done = compose(image=np.zeros((*size, 3), np.uint8), keypoints=points)
        except Exception:  # transforms may raise anything
            return None
    found = np.asarray(done["keypoints"], np.float64)[:, :2]
    if found.shape != points.shape:
        return None
    sources = np.column_stack([points, np.ones(len(points))])
    solution, *_ = np.linalg.lstsq(sources, found, rcond=None)
    linear, shift = solution[:2].T, solution[2]
    if np.abs(sources @ solution - found).max() > TOLERANCE or abs(np.linalg.det(linear)) < 1e-9:
        return None
    if np.allclose(np.abs(linear), np.abs(linear).round(), atol=1e-4):
        # Albumentations flips numbers of pixels and scales positions, which differ by half a pixel.
        shift = shift + 0.5 - linear @ (0.5, 0.5)
    matrix = np.vstack([np.column_stack([linear, shift]), (0, 0, 1)])
    return matrix, (int(done["image"].shape[0]), int(done["image"].shape[1]))
