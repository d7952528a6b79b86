"""Learning-rate range test: losses of a few steps at rising rates, and the rates that they suggest.

Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3; smoothing, stopping and the three
suggestions as in fastai's ``lr_find``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

from ....pipeline.atomic_io import write_bytes
from ....pipeline.errors import RunError

FIRST_RATE, LAST_RATE = 1e-7, 10.0
NUM_STEPS = 100
SMOOTHING = 0.98
DIVERGED = 4.0
"""The test ends at a smoothed loss above this multiple of the lowest."""
MIN_POINTS = 10


@dataclass(frozen=True)
class RangeTest:
    """Smoothed loss at each learning rate, in rising order."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @classmethod
    def run(cls, step: Callable[[float], float | None]) -> RangeTest:
        """Run up to ``NUM_STEPS`` steps at rates that rise by the same factor.

        Args:
            step: trains one step at a learning rate and returns its loss, not finite if it diverged; None without a batch.

        Raises:
            RunError: too few steps to suggest anything.
        """
        rates: list[float] = []
        losses: list[float] = []
        average = 0.0
        for number in range(NUM_STEPS):
            rate = FIRST_RATE * (LAST_RATE / FIRST_RATE) ** (number / (NUM_STEPS - 1))
            loss = step(rate)
            if loss is None or not math.isfinite(loss):
                break
            average = SMOOTHING * average + (1 - SMOOTHING) * loss
            smooth = average / (1 - SMOOTHING ** (number + 1))
            rates.append(rate)
            losses.append(smooth)
            if smooth > DIVERGED * min(losses):
                break
        if len(losses) < MIN_POINTS:
            raise RunError(f"find-lr: expected finite losses in at least {MIN_POINTS} steps, got {len(losses)}; "
                           "check labels and normalisation")  # fmt: skip
        return cls(tuple(rates), tuple(losses))

    @property
    def _shown(self) -> range:
        """Points that suggestions are made from: without the first tenth and the last five, if enough are left."""
        first, last = len(self.rates) // 10, len(self.rates) - 5
        return range(first, last) if last - first >= MIN_POINTS else range(len(self.rates))

    @property
    def steepest(self) -> float:
        """Rate at which the loss falls fastest."""
        points = [(math.log(self.rates[i]), self.losses[i]) for i in self._shown]
        slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(points)]
        return self.rates[self._shown[slopes.index(min(slopes))]]

    @property
    def minimum(self) -> float:
        """A tenth of the rate with the lowest loss."""
        return self.rates[min(self._shown, key=self.losses.__getitem__)] / 10

    @property
    def valley(self) -> float:
        """Rate in the middle of the longest falling part of the curve: fastai's default."""
        shown = self._shown
        lengths = [1] * len(shown)
        for end in range(1, len(shown)):
            falls = [lengths[i] for i in range(end) if self.losses[shown[end]] < self.losses[shown[i]]]
            lengths[end] = 1 + max(falls, default=0)
        longest = max(lengths)
        last = lengths.index(longest)
        first = max(last - longest, 0)
        third = (last - first) / 3
        return self.rates[shown[first + int(third) + int(third / 2)]]

    @property
    def suggestions(self) -> Mapping[str, float]:
        """The three suggested rates by name, rounded to two digits."""
        found = {"valley": self.valley, "steepest": self.steepest, "minimum/10": self.minimum}
        return {name: float(f"{rate:.2g}") for name, rate in found.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return curve and suggestions as JSON types."""
        return {"suggestions": dict(self.suggestions), "rates": list(self.rates), "losses": list(self.losses)}

    def draw(self, path: Path) -> None:
        """Write the curve with its suggestions as a PNG."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.plot(self.rates, self.losses, color="0.3")
        for (name, rate), colour in zip(self.suggestions.items(), ("C0", "C1", "C2"), strict=True):
            nearest = min(range(len(self.rates)), key=lambda i: abs(math.log(self.rates[i] / rate)))
            axes.plot(rate, self.losses[nearest], "o", color=colour, label=f"{name}: {rate:.2g}")
        axes.set(xscale="log", xlabel="learning rate of the head", ylabel="training loss, smoothed")
        low, high = min(self.losses), self.losses[0]
        axes.set_ylim(low - 0.1 * (high - low) - 1e-6, high + 0.5 * (high - low) + 1e-6)
        axes.legend(frameon=False)
        content = BytesIO()
        figure.savefig(content, format="png", dpi=120)
        write_bytes(path, content.getvalue())
