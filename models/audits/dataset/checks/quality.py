"""Images that are dark, light, blurred, noisy, blocky, almost empty, gray among colored ones, or of odd size or aspect.

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
MAX_SOFTNESS = 3.3
"""Softness of the halved copy; images above are blurred. This and the next two limits were fixed on 690 photos of three sets.
Of 249 others from ImageNet one is above; of 30 of them blurred by a Gaussian of 2 of 500 pixels 27, by 4 pixels all."""
MIN_CONTRAST = 10.0
"""Standard deviation of luma from which on a lack of edges is blur and not a plain scene."""
MAX_NOISE = 9.0
"""Levels of luma, in the tile with the least noise; images above are noisy. Of the 249 photos 4 are above, of grass and bushes;
of the 30 with noise of 20 levels in each channel, that is 13 in luma, all are."""
MAX_BLOCKINESS = 2.0
"""Steps at the borders of blocks relative to others; images above are blocky. Of the 249 photos none is above; of the 30 saved
at quality 5 all are, at quality 10 there are 17."""
MIN_ASPECT = 0.35
MAX_GRAY_SHARE = 0.1
"""Share of gray images up to which they are odd among colored ones."""
SIZE_FACTOR = 6.0
"""Factor between an image's side and the median side from which on its size is odd; of 690 photos of three sets the largest
has 5.3 times the median. cleanvision 0.3.7 counts from three interquartile ranges on instead, which flags any other size where
most are equal."""


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
    if "softness" in images and "contrast" in images:
        value = images["softness"]
        is_blurred = (value > MAX_SOFTNESS) & (images["contrast"] >= MIN_CONTRAST)
        blurred = "Drop them, or train with blur (albumentations' GaussianBlur) if the images to come are blurred too."
        yield "blurry", "are blurred", blurred, np.where(is_blurred, value, np.nan)
    if "least_noise" in images:
        level = images["least_noise"]
        noisy = (
            "Drop them, or train with noise (albumentations' GaussNoise) if the images to come are noisy too."
        )
        yield (
            "noisy",
            "are noisy, or show fine texture all over",
            noisy,
            np.where(level > MAX_NOISE, level, np.nan),
        )
    if "blockiness" in images:
        steps = images["blockiness"]
        blocky = "Look for better copies; train with ImageCompression if the images to come are compressed as much."
        yield (
            "blocky",
            "show blocks, of strong compression or of enlarged pixels",
            blocky,
            np.where(steps > MAX_BLOCKINESS, steps, np.nan),
        )
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
