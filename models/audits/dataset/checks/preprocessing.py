"""Advice on preprocessing: borders to crop, levels to stretch, noise to reduce, a size to resize to, constants to normalize by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .....pipeline.policy.spec import TransformSpec
from ...findings.finding import MAX_KEYS, Advice, Effect, Finding, Null, finding_id
from ...findings.intervals import wilson
from ..effects.plan_steps import Section, section_yaml, with_options, with_steps
from ..severity import severity_of
from ..summary import channel_statistics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from .....pipeline.plan.plan import Plan
    from ..dataset_table import DatasetTable

MIN_BORDER = 0.06
"""Share of a side in uniform rows or columns from which on an image has borders. Of 499 photos of ImageNet's validation set 1 % have."""
NARROW_RANGE = 96
"""Levels between the first and the 99th percentile; photos of ImageNet and Raccoon have 124 and more in 99 of 100."""
NOISY = 8.0
"""Standard deviation of noise, in levels; of photos of ImageNet 7 % have more."""
MIN_SHARE = 0.25
"""Share of images with narrow levels or noise from which on a step for all of them is advised."""
MIN_IMAGES = 20
SIZE_RATIO = 1.2
"""Ratio of the 95th and the 5th percentile of the short side from which on sizes differ."""
SIZES = (32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)
"""Short sides that are advised."""
MAX_SHIFT, MAX_RATIO = 0.5, 1.5
"""Difference of means in standard deviations, and ratio of deviations, from which on the constants do not fit the images."""


def find_preprocessing(table: DatasetTable, plan: Plan | None = None) -> list[Finding]:
    """Return findings with steps for the plan, each only where the images call for it.

    Args:
        table: of the dataset.
        plan: the steps come before its own; None for none.
    """
    found = [
        _share_finding(table, name, np.flatnonzero(marked), score, phrase, advice)
        for name, marked, score, phrase, advice in _defects(table, plan)
    ]
    return [*found, *_sizes(table, plan), *_normalization(table, plan)]


def _defects(
    table: DatasetTable, plan: Plan | None
) -> Iterator[tuple[str, NDArray[np.bool_], NDArray[np.float64], str, Advice]]:
    """Yield name, images, strength, phrase and advice of what many images show."""
    images, readable = table.images, table.is_readable
    if "border_vertical" in images:
        pairs = np.stack([images["border_vertical"], images["border_horizontal"]], axis=1)
        width = np.nan_to_num(pairs).max(axis=1, initial=0)
        if (width >= MIN_BORDER).any():
            phrase = "have uniform borders on two opposite sides, such as letterboxes"
            yield "borders", width >= MIN_BORDER, width, phrase, _crop(pairs[readable], plan)
    if "brightness_p99" in images and "brightness_p1" in images:
        span = images["brightness_p99"] - images["brightness_p1"]
        is_narrow = readable & (span < NARROW_RANGE)
        if _are_many(table, is_narrow):
            text = "Stretch the levels of every image, in training and afterwards."
            step = TransformSpec(name="AutoContrast", options={"p": 1.0})
            phrase = f"use less than {NARROW_RANGE} of 256 levels"
            yield "levels", is_narrow, -span, phrase, Advice(text, with_steps(plan, "preprocess", step))
    if "noise" in images:
        noise = images["noise"]
        is_noisy = readable & (noise >= NOISY)
        if _are_many(table, is_noisy):
            text = "Reduce the noise by a median of 3 x 3 pixels, if fine detail does not matter; compare the validation score."
            step = TransformSpec(name="MedianBlur", options={"blur_limit": [3, 3], "p": 1.0})
            phrase = f"have noise of a standard deviation above {NOISY:g} levels"
            yield "noise", is_noisy, noise, phrase, Advice(text, with_steps(plan, "preprocess", step))


def _are_many(table: DatasetTable, marked: NDArray[np.bool_]) -> bool:
    return int(marked.sum()) >= max(MIN_IMAGES * MIN_SHARE, MIN_SHARE * int(table.is_readable.sum()))


def _crop(pairs: NDArray[np.float64], plan: Plan | None) -> Advice:
    """Return a crop by the borders that most images have, if most have the same."""
    usual = np.nanquantile(pairs, 0.25, axis=0).round(3) if len(pairs) else np.zeros(2)
    if usual.max() < MIN_BORDER:
        return Advice(
            "Crop these files: the borders of the others differ, and a plan crops all images alike."
        )
    vertical, horizontal = (-usual / 2).tolist()
    options = {"percent": [vertical, horizontal, vertical, horizontal], "keep_size": False, "p": 1.0}
    step = TransformSpec(name="CropAndPad", options=options)
    text = "Crop what three quarters of the images have as borders."
    return Advice(text, with_steps(plan, "preprocess", step))


def _sizes(table: DatasetTable, plan: Plan | None) -> list[Finding]:
    """Return a finding with a size to resize to, for a dataset of different sizes without a plan of its own."""
    if (
        "width" not in table.files
        or "height" not in table.files
        or (plan and (plan.preprocess or plan.augment))
    ):
        return []
    sides = np.minimum(table.files["width"], table.files["height"])
    rows = np.flatnonzero(table.is_readable & np.isfinite(sides))
    if len(rows) < MIN_IMAGES:
        return []
    low, middle, high = np.quantile(sides[rows], (0.05, 0.5, 0.95)).tolist()
    if high < SIZE_RATIO * low:
        return []
    target = max((side for side in SIZES if side <= low), default=SIZES[0])
    fit = TransformSpec(name="SmallestMaxSize", options={"max_size": target})
    crop = {"height": target, "width": target}
    sections: dict[Section, list[TransformSpec]] = {
        "augment": [
            TransformSpec(name="RandomResizedCrop", options={"size": [target, target], "scale": [0.35, 1.0]})
        ],
        "evaluate": [fit, TransformSpec(name="CenterCrop", options=crop)],
    }
    text = f"Batches need one size: at {target} px, 95 % of the images are not enlarged; larger inputs gain from larger images only."
    sentence = f"Short sides range from {low:.0f} to {high:.0f} px in 90 % of the {len(rows):,} images, the median is {middle:.0f} px."
    order = rows[np.argsort(sides[rows], kind="stable")]
    effect = Effect(middle, "pixels of the short side", low, high)
    advice = Advice(text, section_yaml(sections))
    return [_finding(table, "sizes", sentence, effect, order, len(rows), advice)]


def _normalization(table: DatasetTable, plan: Plan | None) -> list[Finding]:
    """Return a finding if the plan's constants are far from the mean and deviation of the channels."""
    own = next(
        (specs[-1] for specs in _sections(plan).values() if specs and specs[-1].name == "Normalize"), None
    )
    measured = channel_statistics(table) if "mean_r" in table.images else None
    if own is None or measured is None or plan is None:
        return []
    built = own.build("Normalize")
    given = [np.broadcast_to(np.asarray(getattr(built, name), np.float64), 3) for name in ("mean", "std")]
    mean, std = (np.asarray(measured[name]) for name in ("mean", "std"))
    shift = np.abs(given[0] - mean) / np.maximum(given[1], 1e-3)
    ratio = np.maximum(given[1], 1e-3) / np.maximum(std, 1e-3)
    if shift.max() < MAX_SHIFT and np.maximum(ratio, 1 / ratio).max() < MAX_RATIO:
        return []
    sections: dict[Section, list[TransformSpec]] = {
        name: [*specs[:-1], *with_options(specs[-1], mean=measured["mean"], std=measured["std"])]
        for name, specs in _sections(plan).items()
        if specs and specs[-1].name == "Normalize"
    }
    sentence = (
        f"Normalize has mean {given[0].round(3).tolist()} and std {given[1].round(3).tolist()}, the images have mean "
        f"{measured['mean']} and std {measured['std']}: inputs are off by up to {shift.max():.1f} standard deviations."
    )
    text = "Normalize by the constants of the images when training from scratch; pretrained weights keep their own."
    rows = np.flatnonzero(table.is_readable)
    effect = Effect(float(shift.max()), "standard deviations")
    return [
        _finding(
            table,
            "normalization",
            sentence,
            effect,
            rows[:0],
            len(rows),
            Advice(text, section_yaml(sections)),
        )
    ]


def _sections(plan: Plan | None) -> dict[Section, tuple[TransformSpec, ...]]:
    names: tuple[Section, ...] = ("preprocess", "augment", "evaluate")
    return {} if plan is None else {name: getattr(plan, name) for name in names}


def _share_finding(
    table: DatasetTable,
    name: str,
    rows: NDArray[np.intp],
    score: NDArray[np.float64],
    phrase: str,
    advice: Advice,
) -> Finding:
    num = int(table.is_readable.sum())
    strongest = rows[np.argsort(-score[rows], kind="stable")]
    low, high = wilson(len(rows), num) or (None, None)
    effect = Effect(len(rows) / num, "share of images", low, high)
    sentence = f"{len(rows):,} of {num:,} images {phrase}."
    return _finding(table, name, sentence, effect, strongest, num, advice)


def _finding(
    table: DatasetTable,
    name: str,
    sentence: str,
    effect: Effect,
    rows: NDArray[np.intp],
    num_images: int,
    advice: Advice,
) -> Finding:
    aspect = name if name in ("sizes", "normalization") else "share of images"
    return Finding(
        id=finding_id("preprocessing", name),
        kind="preprocessing",
        severity=severity_of("preprocessing", aspect, effect.value),
        class_name=None,
        class_number=-1,
        group=None,
        sentence=sentence,
        effect=effect,
        null=Null(None),
        num_images=num_images,
        num_concerned=len(rows),
        keys=table.keys_of(rows[:MAX_KEYS]),
        advice=advice,
    )
