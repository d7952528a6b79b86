"""The verdict on an audit's maps: may findings be built on them, and if not, why.

Every threshold is a constant below, with its reason. A check whose value cannot be measured neither passes nor fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ....pipeline.rng import derive_seed, numpy_generator
from ..findings.intervals import Interval, bootstrap_mean, wilson
from .records import column
from .trust_checks import (
    DELETION,
    DELETION_RANDOM,
    INSERTION,
    INSERTION_RANDOM,
    MIN_IMAGES,
    MIRRORED,
    PATCH,
    RANDOMIZED,
    SECOND_METHOD,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

Bound = Literal["value", "low", "high"]
"""What is compared with a threshold: the mean, or an end of its interval."""

MAX_RANDOMIZED = 0.5
"""Mean rank correlation with the maps of random weights from which on most of a map's order comes from image and
architecture. Maps of networks that pass Adebayo's test come near 0; those of edge detectors stay near 1."""
MIN_PATCH = 0.5
"""Share of images whose map has to change where a patch is; fails if the whole interval is below. With a wrong token grid or
layout hardly any map does, and with random weights one in eight; images that already have strong evidence elsewhere may fail
singly."""
MIN_MIRRORED = 0.0
"""Mean rank correlation with the map of the mirrored image. Networks see mirrored images alike to a degree that differs, so
only maps that are no more alike than by chance fail."""
MAX_EMPTY = 0.5
"""Share of images without a usable map from which on the rest no longer stands for the data set."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the maps."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    """95 % bootstrap interval over images."""
    threshold: float
    passed: bool | None
    """None if it could not be measured."""
    sentence: str


@dataclass(frozen=True, slots=True)
class Trust:
    """Verdict on the maps of a model."""

    trusted: bool | None
    """None if there were too few images for a verdict."""
    num_images: int
    """Images in the sample."""
    checks: tuple[Check, ...]
    reasons: tuple[str, ...]
    """Sentences of the checks that failed, or the reason for having no verdict."""
    insertion_gain: float | None
    """Mean area under the insertion curve minus that of random order; reported, without a threshold."""
    second_method: float | None
    """Mean rank correlation with the maps of a second method, LayerCAM; reported, without a threshold."""

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        return asdict(self) | {
            "checks": [asdict(check) for check in self.checks],
            "reasons": list(self.reasons),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Create a verdict from the values of ``to_dict``."""
        checks = tuple(Check(**check) for check in fields["checks"])
        return cls(**{**fields, "checks": checks, "reasons": tuple(fields["reasons"])})


def judge(trust: pa.Table, maps: pa.Table, seed: int) -> Trust:
    """Judge the maps of an audit.

    Args:
        trust: records of the stage ``trust``; may be empty.
        maps: records of the stage ``maps``.
        seed: of the plan, for the bootstrap.
    """
    values = values_by_check(trust)
    num_images = len(set(trust["key"].to_pylist()))
    deletion = values.get(DELETION_RANDOM, np.zeros(0)) - values.get(DELETION, np.zeros(0))
    insertion = values.get(INSERTION, np.zeros(0)) - values.get(INSERTION_RANDOM, np.zeros(0))
    measured = [
        _check("randomized weights", _last_measured(values), MAX_RANDOMIZED, seed, below=True),
        _check("patch", values.get(PATCH, np.zeros(0)), MIN_PATCH, seed, decides="high"),
        _check("deletion", deletion, 0.0, seed, decides="low"),
        _check("mirrored image", values.get(MIRRORED, np.zeros(0)), MIN_MIRRORED, seed),
        _empty_check(maps),
    ]
    failed = tuple(check.sentence for check in measured if check.passed is False)
    too_few = num_images < MIN_IMAGES and measured[-1].passed is not False
    reasons = (
        (
            f"the maps of fewer than {MIN_IMAGES} images were to be checked; raise trust_images, or audit more images",
        )
        if too_few
        else failed
    )
    return Trust(
        trusted=None if too_few else not failed,
        num_images=num_images,
        checks=tuple(measured),
        reasons=reasons,
        insertion_gain=_mean(insertion),
        second_method=_mean(values.get(SECOND_METHOD, np.zeros(0))),
    )


def values_by_check(trust: pa.Table) -> dict[str, NDArray[np.float64]]:
    """Return the values of each check, in the order of the images; NaN where there is none."""
    checks = np.asarray(trust["check"].to_pylist(), dtype=object)
    values = np.asarray(column(trust, "value"), np.float64)
    return {str(name): values[checks == name] for name in dict.fromkeys(checks.tolist())}


def _mean(values: NDArray[np.float64]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None


def _last_measured(values: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the rank correlations of the copy with the most random layers whose maps are finite."""
    for name in reversed(RANDOMIZED):
        found = values.get(name, np.zeros(0))
        if np.isfinite(found).any():
            return found
    return np.zeros(0)


_SENTENCES = {
    "randomized weights": (
        "maps change when the weights are random: rank correlation {value:.2f} ({low:.2f} to {high:.2f})",
        "maps hardly change when the weights are random (rank correlation {value:.2f}, {low:.2f} to {high:.2f}; at most "
        "{threshold} is expected), so they show the images, not the model; name another target_layer",
    ),
    "patch": (
        "maps change where the image does, in {percent:.0f} % of the images ({low_percent:.0f} to {high_percent:.0f} %)",
        "maps change where the image does in only {percent:.0f} % of the images ({low_percent:.0f} to {high_percent:.0f} %; at "
        "least 50 % is expected), so a cell of a map does not stand for a place; name another target_layer",
    ),
    "deletion": (
        "deleting pixels in the order of the map lowers the probability faster than random order: by {value:.3f} of the area "
        "({low:.3f} to {high:.3f})",
        "deleting pixels in the order of the map does not lower the probability faster than random order (difference of the "
        "areas {value:.3f}, {low:.3f} to {high:.3f}), so the model does not use what the maps show",
    ),
    "mirrored image": (
        "maps of mirrored images are the mirrored maps: rank correlation {value:.2f} ({low:.2f} to {high:.2f})",
        "maps of mirrored images have nothing to do with the mirrored maps (rank correlation {value:.2f}, {low:.2f} to "
        "{high:.2f})",
    ),
    "usable maps": (
        "{percent:.0f} % of the maps have no positive evidence, no peak or values that are not finite",
        "{percent:.0f} % of the maps have no positive evidence, no peak or values that are not finite (at most 50 % is "
        "expected), so the others do not stand for the data set",
    ),
}
"""By check: what it says when it passes, and when it fails."""


def _check(
    name: str,
    values: NDArray[np.float64],
    threshold: float,
    seed: int,
    *,
    below: bool = False,
    decides: Bound = "value",
) -> Check:
    """Compare a mean over images, or the lower or upper end of its interval, with a threshold."""
    finite = values[np.isfinite(values)]
    interval = bootstrap_mean(
        finite, numpy_generator(derive_seed("audit.trust", seed, 0, f"interval {name}"))
    )
    value = float(finite.mean()) if len(finite) else None
    return _compare(name, value, interval, threshold, below=below, decides=decides)


def _compare(
    name: str,
    value: float | None,
    interval: Interval | None,
    threshold: float,
    *,
    below: bool = False,
    decides: Bound = "value",
) -> Check:
    if value is None or interval is None:
        return Check(name, None, None, None, threshold, None, f"{name}: not measured")
    low, high = interval
    decisive = {"value": value, "low": low, "high": high}[decides]
    passed = decisive < threshold if below else decisive > threshold
    sentence = _SENTENCES[name][0 if passed else 1].format(
        value=value,
        low=low,
        high=high,
        threshold=threshold,
        percent=100 * value,
        low_percent=100 * low,
        high_percent=100 * high,
    )
    return Check(name, value, low, high, threshold, passed, sentence)


def _empty_check(maps: pa.Table) -> Check:
    """Check the share of maps without evidence or peak; its interval is Wilson's, since all images count."""
    flags = [pc.fill_null(maps[name], False).to_numpy() for name in ("blank", "tied", "no_map")]
    unusable, num = int(np.logical_or.reduce(flags).sum()), maps.num_rows
    share = unusable / num if num else None
    return _compare("usable maps", share, wilson(unusable, num), MAX_EMPTY, below=True)
