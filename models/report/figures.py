"""Figures of results as PNG, in the colours of the audit's report."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pipeline.atomic_io import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .curves import Curves

COLORS = ("#c2410c", "#1d4ed8", "#0f766e", "#7c3aed", "#a16207", "#be185d")
INK, SOFT, LINE = "#16191d", "#5b6470", "#e3e6ea"
DPI = 120
MAX_NAMED = 30
"""Classes whose names are written beside a confusion matrix; more are numbered."""
MAX_COUNTED = 15
"""Classes up to which the cells of a confusion matrix have numbers."""
NAME_LENGTH = 24


def write_curves(path: Path, charts: Mapping[str, Curves]) -> None:
    """Draw training curves, one chart beside the other: losses and metrics by epoch.

    Args:
        path: the PNG.
        charts: chart name -> curve name -> (epoch, value), from ``curves.read_curves``.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(len(charts), width=5.2, height=3.4)
    for place, (title, curves) in zip(axes, charts.items(), strict=True):
        for number, (name, points) in enumerate(curves.items()):
            epochs, values = zip(*points, strict=True)
            color = COLORS[number % len(COLORS)]
            place.plot(
                [epoch + 1 for epoch in epochs],
                values,
                label=_plain(name),
                color=color,
                linewidth=1.8,
                marker="o",
                markersize=2.6 if len(points) > 1 else 5,
            )
        _style(place, title, "epoch", "")
        place.xaxis.set_major_locator(MaxNLocator(integer=True))
        place.legend(frameon=False, fontsize=8, labelcolor=INK)
    _save(figure, path)


def write_confusion(path: Path, confusion: np.ndarray, classes: Sequence[str]) -> None:
    """Draw a confusion matrix: shares of each true class, with the number of images where there is space.

    Raises:
        OutputError: the file cannot be written.
    """
    num = len(classes)
    side = min(9.0, 2.6 + 0.42 * min(num, MAX_NAMED))
    figure, (place,) = _figure(1, width=side + 0.9, height=side)
    sizes = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, sizes, out=np.zeros(confusion.shape), where=sizes > 0)
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("accent", ["#ffffff", COLORS[0]])
    image = place.imshow(shares, cmap=shades, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    if num <= MAX_COUNTED:
        for row, column in np.ndindex(confusion.shape):
            if confusion[row, column]:
                color = "white" if shares[row, column] > 0.55 else INK
                place.text(
                    column,
                    row,
                    f"{confusion[row, column]:,}",
                    ha="center",
                    va="center",
                    color=color,
                    fontsize=8,
                )
    if num <= MAX_NAMED:
        names = [_plain(name) for name in classes]
        place.set_xticks(
            range(num), names, rotation=45 if num > 3 else 0, ha="right" if num > 3 else "center"
        )
        place.set_yticks(range(num), names)
    _style(place, "", "predicted", "true", grid=False)
    bar = figure.colorbar(image, ax=place, fraction=0.045, pad=0.03)
    bar.set_label("share of the true class", color=SOFT, fontsize=8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=SOFT, labelsize=8, length=0)
    _save(figure, path)


def write_reliability(path: Path, diagrams: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw reliability diagrams: accuracy of the images in each bin of confidence, and their number.

    Args:
        path: the PNG.
        diagrams: title -> ``Calibration.as_dict()``.

    Raises:
        OutputError: the file cannot be written.
    """
    figure, axes = _figure(len(diagrams), width=4.2, height=4.0)
    for place, (title, found) in zip(axes, diagrams.items(), strict=True):
        total = sum(each["num_images"] for each in found["bins"])
        edges = np.array([(each["from"], each["to"]) for each in found["bins"]]).reshape(-1, 2)
        middles, widths = edges.mean(axis=1), np.diff(edges)[:, 0]
        accuracies = [each["accuracy"] for each in found["bins"]]
        shares = [each["num_images"] / total for each in found["bins"]]
        place.bar(middles, accuracies, widths * 0.9, color=COLORS[1], alpha=0.7)
        place.bar(middles, shares, widths * 0.3, color=INK, alpha=0.55)
        confidences = [each["confidence"] for each in found["bins"]]
        place.plot(confidences, accuracies, "o", color=INK, markersize=3)
        place.plot([0, 1], [0, 1], color=COLORS[0], linewidth=1.4)
        place.set_xlim(0, 1)
        place.set_ylim(0, 1)
        text = f"{title}\nECE {found['ece']:.3f}, adaptive {found['adaptive_ece']:.3f}"
        _style(place, text, "confidence (narrow bars: share of images)", "accuracy")
    _save(figure, path)


def _figure(num: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * num, height), dpi=DPI, layout="constrained", facecolor="white")
    return figure, list(figure.subplots(1, num, squeeze=False)[0])


def _style(place: Axes, title: str, across: str, down: str, *, grid: bool = True) -> None:
    place.set_title(title, color=INK, fontsize=10, loc="left")
    place.set_xlabel(across, color=SOFT, fontsize=9)
    place.set_ylabel(down, color=SOFT, fontsize=9)
    place.tick_params(colors=SOFT, labelsize=8, length=0)
    place.set_axisbelow(True)
    if grid:
        place.grid(color=LINE, linewidth=0.8)
    for spine in place.spines.values():
        spine.set_visible(False)


def _plain(name: str) -> str:
    """Return a name that matplotlib draws as it is: short, printable and without mathematical text."""
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name)
    text = text if len(text) <= NAME_LENGTH else f"{text[: NAME_LENGTH - 1]}…"
    return text.replace("$", r"\$").lstrip("_") or " "


def _save(figure: Figure, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content = io.BytesIO()
    canvas = FigureCanvasAgg(figure)
    canvas.print_png(content, metadata={"Software": None})  # type: ignore[no-untyped-call]
    write_bytes(path, content.getvalue())
