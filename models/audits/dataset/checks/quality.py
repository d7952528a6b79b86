"""Images that are too dark, too light, blurred, almost empty, gray among colored ones, or of odd size or aspect.

Thresholds of brightness, entropy and aspect are those of cleanvision 0.3.7 (`image_property_issue_manager`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..severity import severity_of
from .share_findings import share_finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ...findings.finding import Finding
    from ..dataset_table import DatasetTable

DARK = 0.32 * 255
"""Level that 99 % of the pixels of a dark image do not exceed."""
LIGHT = 0.95 * 255
"""Level that 95 % of the pixels of a light image exceed."""
MIN_ENTROPY = 3.0
"""Bits of the luma of an image with some content."""
MIN_SHARPNESS = 30.0
"""Variance of the Laplacian, in squared levels, on the working copy; images below are blurred. Of 499 photos of ImageNet's
validation set none is below, of 20 of them blurred by a Gaussian of 8 pixels 17 are, by 4 pixels 2."""
MIN_CONTRAST = 20.0
"""Standard deviation of luma from which on a lack of edges is blur and not a plain scene."""
MIN_ASPECT = 0.35
MAX_GRAY_SHARE = 0.1
"""Share of gray images up to which they are odd among colored ones."""
SIZE_FACTOR = 10.0
"""Factor between an image's side and the median side from which on its size is odd. cleanvision 0.3.7 counts from three interquartile ranges
on instead, which flags any other size where most are equal."""


def find_quality(table: DatasetTable) -> list[Finding]:
    """Return a finding for each defect, with the worst images first."""
    num_images = int(table.is_readable.sum())
    found = []
    for name, phrase, advice, score in _defects(table):
        rows = np.flatnonzero(np.isfinite(score) & table.is_readable)
        if len(rows):
            worst = rows[np.argsort(-score[rows], kind="stable")]
            severity = severity_of("quality", "share of images", len(rows) / num_images)
            found.append(share_finding(table, ("quality", name, severity), worst, num_images, phrase, advice))
    return found


def _defects(table: DatasetTable) -> Iterator[tuple[str, str, str, NDArray[np.float64]]]:
    """Yield name, phrase, advice and the strength of each image; NaN for images without the defect."""
    images, files = table.images, table.files
    look = "Look at these images; drop those that show nothing."
    if "brightness_p99" in images:
        level = images["brightness_p99"]
        yield "dark", "are dark", look, np.where(level < DARK, -level, np.nan)
    if "brightness_p5" in images:
        level = images["brightness_p5"]
        yield "light", "are very light", look, np.where(level > LIGHT, level, np.nan)
    if "entropy" in images:
        bits = images["entropy"]
        yield "low information", "show almost nothing", look, np.where(bits < MIN_ENTROPY, -bits, np.nan)
    if "working_sharpness" in images and "contrast" in images:
        value = images["working_sharpness"]
        is_blurred = (value < MIN_SHARPNESS) & (images["contrast"] >= MIN_CONTRAST)
        blurred = "Drop them, or train with blur (albumentations' GaussianBlur) if the images to come are blurred too."
        yield "blurry", "are blurred", blurred, np.where(is_blurred, -value, np.nan)
    if "is_gray" in images:
        gray = images["is_gray"] == 1
        if gray.sum() <= MAX_GRAY_SHARE * table.is_readable.sum():
            both = "Train with ToGray at a small p if gray images are to come, or drop these."
            yield "gray", "are gray, others colored", both, np.where(gray, 1.0, np.nan)
    if "width" in files and "height" in files:
        width, height = (np.asarray(files[name], np.float64) for name in ("width", "height"))
        with np.errstate(divide="ignore", invalid="ignore"):
            aspect = np.minimum(width, height) / np.maximum(width, height)
            side = np.sqrt(width * height)
            known = side[np.isfinite(side) & table.is_readable]
            ratio = side / np.median(known) if len(known) else side
            distance = np.abs(np.log(ratio))
        crop = "Resizing distorts them and center crops lose most of them; check where the object is."
        yield "odd aspect", "are very long or tall", crop, np.where(aspect < MIN_ASPECT, -aspect, np.nan)
        odd = "Very small images are upscaled beyond their detail; drop thumbnails."
        phrase = f"are more than {SIZE_FACTOR:g} times larger or smaller than the median"
        yield "odd size", phrase, odd, np.where(distance > np.log(SIZE_FACTOR), distance, np.nan)
