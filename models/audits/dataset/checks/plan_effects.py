"""Effects of a plan's transforms on the images: objects that crops cut off, enlargement, clipping, changed brightness."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .....pipeline.compiler.program import Program
from ...findings.finding import MAX_KEYS, Advice, Effect, Finding, Null, Severity, finding_id
from ...findings.intervals import ratio_interval
from ..effects.plan_steps import Step, steps_of
from ..severity import severity_of
from .plan_advice import crop_advice, resize_advice, weaker_advice

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from .....pipeline.index.index import Index
    from .....pipeline.plan.plan import Plan
    from ..dataset_table import DatasetTable

MIN_KEPT = 0.3
"""Share of an object below which a crop is said to lose it; 0.3 is the smallest overlap that the box-aware crops of SSD (Liu et al.,
ECCV 2016, section 2.2) ask for besides 0.1."""
MAX_ENLARGEMENT = 2.0
"""Pixels of the output per pixel of the original, along one side, from which on images are enlarged."""
MAX_CLIPPED = 0.1
"""Share of a view's pixels."""
MIN_SHARE = 0.05
"""Share of views or objects, at the lower end of its interval, from which on there is a finding."""
MIN_OBJECTS = 20
"""Views of objects of a class from which on it is named."""
TAIL = 0.005
"""Share of the originals at either end of their brightness that lies outside their range."""


@dataclass(frozen=True)
class Views:
    """Measures of the views of one kind."""

    name: str
    """``training`` or ``evaluation``."""
    rows: list[dict[str, Any]]
    steps: list[Step]

    @cached_property
    def image(self) -> NDArray[np.int64]:
        """Number of the image of each row."""
        return np.unique([row["key"] for row in self.rows], return_inverse=True)[1]

    def column(self, name: str) -> NDArray[np.float64]:
        """Return a measure by row; NaN where there is none."""
        return np.asarray([np.nan if row[name] is None else row[name] for row in self.rows], np.float64)

    def step(self, name: str, rows: NDArray[np.bool_]) -> Step | None:
        """Return the step that is named most in a column of some rows."""
        numbers = [row[name] for row, chosen in zip(self.rows, rows.tolist(), strict=True) if chosen]
        known = [number for number in numbers if number is not None and number < len(self.steps)]
        return self.steps[int(np.bincount(known).argmax())] if known else None


@dataclass(frozen=True)
class Share:
    """Share of views or objects that show something."""

    shown: NDArray[np.bool_]
    image: NDArray[np.int64]
    value: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """Percentage with its interval."""
        return f"{100 * self.value:.0f} % [{100 * self.low:.0f}, {100 * self.high:.0f}]"


def find_plan_effects(table: DatasetTable, plan: Plan, effects: pa.Table | None) -> list[Finding]:
    """Return findings about the training views and the evaluation of a plan; none without measured views.

    Args:
        table: of the dataset.
        plan: whose transforms were measured.
        effects: records of the stage ``plan_effects``.
    """
    if effects is None or not effects.num_rows:
        return []
    program = Program.compile(plan.model_copy(update={"cache": None, "progressive_size": None}))
    rows = effects.to_pylist()
    found = _failures(table, rows)
    usable = [row for row in rows if row["problem"] is None]
    training = Views("training", [row for row in usable if row["view"] >= 0], steps_of(program, augment=True))
    evaluation = Views(
        "evaluation", [row for row in usable if row["view"] < 0], steps_of(program, augment=False)
    )
    for views in (training, evaluation) if plan.augment or plan.evaluate else (evaluation,):
        if views.rows:
            found += _lost_objects(table, plan, views)
    enlarged = _enlarged(table, plan, evaluation) or _enlarged(table, plan, training)
    return [*found, *enlarged, *_clipped(table, plan, training), *_brightness(table, plan, training)]


def _failures(table: DatasetTable, rows: list[dict[str, Any]]) -> list[Finding]:
    keys = list(dict.fromkeys(row["key"] for row in rows if row["problem"] is not None))
    if not keys:
        return []
    reasons = [row["problem"] for row in rows if row["problem"] is not None]
    images = np.unique([row["key"] for row in rows], return_inverse=True)[1]
    share = _share(table, np.asarray([row["problem"] is not None for row in rows], np.bool_), images, "fails")
    sentence = f"The plan fails on {len(keys):,} of {images.max() + 1:,} images, first with: {reasons[0]}."
    advice = Advice(
        "Change the step, or drop the images; training leaves them out or stops, as the plan says."
    )
    severity = severity_of("plan_effect", "failures", share.value)
    return [_finding("failure", severity, sentence, share, keys, advice)]


def _lost_objects(table: DatasetTable, plan: Plan, views: Views) -> list[Finding]:
    """Return a finding if few of an object's box or mask is left in many views."""
    objects = [
        (number, one["number"], one["is_mask"], one["kept"])
        for number, row in enumerate(views.rows)
        for one in row["objects"] or ()
    ]
    if not objects:
        return []
    rows, classes, is_mask, kept = (np.asarray(column) for column in zip(*objects, strict=True))
    share = _share(table, kept < MIN_KEPT, views.image[rows], f"objects {views.name}")
    if share.low < MIN_SHARE:
        return []
    concerned = np.zeros(len(views.rows), np.bool_)
    concerned[rows[share.shown]] = True
    step = views.step("cropped_by", concerned)
    if step is None:
        return []
    index = plan.load_index()
    names = [_object_name(index, *one) for one in zip(classes.tolist(), is_mask.tolist(), strict=True)]
    worst = _worst_class(np.asarray(names), share.shown)
    sentence = (
        f"{step.title} keeps less than {100 * MIN_KEPT:.0f} % of the object in {share.text} of its {views.name} views: "
        f"{int(share.shown.sum()):,} of {len(kept):,}{worst}; {_sampled(views)}."
    )
    severity = severity_of("plan_effect", "share of views", share.value)
    order = np.argsort(kept, kind="stable")
    keys = list(dict.fromkeys(views.rows[rows[one]]["key"] for one in order.tolist() if share.shown[one]))
    advice = crop_advice(plan, step, views.column("kept")[rows], share.shown, MIN_SHARE)
    return [_finding(f"objects {views.name}", severity, sentence, share, keys, advice)]


def _worst_class(names: NDArray[np.str_], shown: NDArray[np.bool_]) -> str:
    found = [
        (float(shown[names == name].mean()), str(name))
        for name in np.unique(names)
        if name and (names == name).sum() >= MIN_OBJECTS
    ]
    if len(found) < 2:
        return ""
    name = max(found)[1]
    of_class = shown[names == name]
    return f", most often of class '{name}' ({int(of_class.sum()):,} of {len(of_class):,})"


def _object_name(index: Index, number: int, is_mask: bool) -> str:
    names = index.classes if is_mask else index.box_classes
    if number < 0:
        return ""
    return names[number] if number < len(names) else str(number)


def _enlarged(table: DatasetTable, plan: Plan, views: Views) -> list[Finding]:
    factor = views.column("enlargement")
    if not np.isfinite(factor).any():
        return []
    share = _share(table, np.nan_to_num(factor) > MAX_ENLARGEMENT, views.image, f"enlarged {views.name}")
    if share.low < MIN_SHARE:
        return []
    shown = np.flatnonzero(share.shown)
    side, height, width = (
        int(np.median(views.column(name)[shown])) for name in ("short_side", "height", "width")
    )
    what = "images" if views.name == "evaluation" else "training views"
    sentence = (
        f"{share.text} of the {what} are enlarged more than {MAX_ENLARGEMENT:g} times (median short side "
        f"{side} px, to {height} x {width}); {_sampled(views)}."
    )
    severity = severity_of("plan_effect", "share of views", share.value)
    keys = _strongest(views, factor, share.shown)
    goal = float(np.nanquantile(factor, 1 - MIN_SHARE)) / MAX_ENLARGEMENT
    advice = resize_advice(plan, min(height, width), goal)
    return [_finding(f"enlarged {views.name}", severity, sentence, share, keys, advice)]


def _clipped(table: DatasetTable, plan: Plan, views: Views) -> list[Finding]:
    clipped = np.nan_to_num(views.column("clipped"))
    if not len(clipped):
        return []
    share = _share(table, clipped > MAX_CLIPPED, views.image, "clipped")
    step = views.step("clipped_by", share.shown)
    if share.low < MIN_SHARE or step is None:
        return []
    sentence = (
        f"{step.title} clips more than {100 * MAX_CLIPPED:.0f} % of the pixels to 0 or 255 in {share.text} of the training "
        f"views; {_sampled(views)}."
    )
    severity = severity_of("plan_effect", "share of views", share.value)
    keys = _strongest(views, clipped, share.shown)
    return [_finding("clipped", severity, sentence, share, keys, weaker_advice(plan, step, share.value))]


def _brightness(table: DatasetTable, plan: Plan, views: Views) -> list[Finding]:
    """Return a finding if color steps make views darker or lighter than the originals are."""
    level, change = views.column("brightness"), views.column("brightness_change")
    plain = (level - change)[np.isfinite(level)]
    if not len(plain):
        return []
    low, high = np.quantile(plain, (TAIL, 1 - TAIL)).tolist()
    is_outside = np.isfinite(level) & ((level < low) | (level > high)) & (np.abs(change) >= 1)
    share = _share(table, is_outside, views.image, "brightness")
    if share.low < MIN_SHARE:
        return []
    numbers = [step for step in views.steps if _changes_brightness(step)]
    step = max(numbers, key=lambda one: (one.section == "augment", -one.number), default=None)
    sentence = (
        f"The brightness of {share.text} of the training views lies outside that of 99 % of the images before color steps "
        f"({low:.0f} to {high:.0f} of 255); {_sampled(views)}."
    )
    keys = _strongest(views, np.abs(change), share.shown)
    advice = (
        Advice("Narrow the ranges of the steps that change colors, unless the images to come differ as much.")
        if step is None
        else weaker_advice(plan, step, share.value)
    )
    return [_finding("brightness", severity_of("plan_effect", "brightness"), sentence, share, keys, advice)]


def _changes_brightness(step: Step) -> bool:
    from .plan_advice import NEUTRAL

    return step.spec.name in NEUTRAL


def _share(table: DatasetTable, shown: NDArray[np.bool_], image: NDArray[np.int64], purpose: str) -> Share:
    """Return the share of views or objects with the bootstrap interval over images."""
    generator = table.generator(f"plan effects {purpose}")
    num = int(image.max()) + 1 if len(image) else 0
    counts = np.bincount(image, shown, num), np.bincount(image, minlength=num)
    used = counts[1] > 0
    low, high = ratio_interval(counts[0][used], counts[1][used], generator) or (0.0, 1.0)
    return Share(shown, image, float(shown.mean()) if len(shown) else 0.0, low, high)


def _strongest(views: Views, strength: NDArray[np.float64], shown: NDArray[np.bool_]) -> list[str]:
    order = np.argsort(-strength, kind="stable")
    return list(dict.fromkeys(views.rows[row]["key"] for row in order.tolist() if shown[row]))


def _sampled(views: Views) -> str:
    images = int(views.image.max()) + 1
    each = len(views.rows) // images
    return f"measured on {images:,} images" + (f" in {each} views each" if each > 1 else "")


def _finding(
    subject: str,
    severity: Severity,
    sentence: str,
    share: Share,
    keys: list[str],
    advice: Advice,
) -> Finding:
    return Finding(
        id=finding_id("plan_effect", subject),
        kind="plan_effect",
        severity=severity,
        class_name=None,
        class_number=-1,
        group=None,
        sentence=sentence,
        effect=Effect(share.value, "share of views", share.low, share.high),
        null=Null(None),
        num_images=len(np.unique(share.image)),
        num_concerned=len(np.unique(share.image[share.shown])),
        keys=tuple(keys[:MAX_KEYS]),
        advice=advice,
    )
