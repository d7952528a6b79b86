"""HTML report of an audit: a single file without external resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from ....pipeline.atomic_io import write_text
from ...report.curves import Curves
from .charts import line_chart, reliability_chart
from .gallery import Section, class_name
from .pictures import heat_picture, mean_map
from .records import maps_array

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

MAX_MATRIX_CLASSES = 20
"""Maximum number of classes for a confusion matrix; with more, repeated errors are listed."""
MAX_WEAKEST = 12
MAX_MEANS = 12
MIN_MEAN = 5
"""Minimum number of maps for a mean map."""
MAX_QUARANTINE = 50


@dataclass(frozen=True)
class Report:
    """Content of the report."""

    title: str
    findings: Mapping[str, Any]
    records: pa.Table
    gallery: Sequence[Section]
    quarantine: Sequence[Mapping[str, Any]]
    names: Sequence[str] = ()
    """Names of all classes by number."""
    curves: Mapping[str, Curves] = field(default_factory=dict)
    """Training curves: chart name -> curve name -> (epoch, value)."""
    credit: str = ""

    def write(self, path: Path) -> None:
        """Write the page atomically.

        Raises:
            OutputError: the file cannot be written.
        """
        write_text(path, self.render())

    def render(self) -> str:
        """Return the page as HTML, with all names escaped."""
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(
            loader=PackageLoader(__package__, "."),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["percent"] = percent
        environment.filters["interval"] = interval
        environment.finalize = replace_unprintable
        means = class_means(self.records, self.findings)
        return environment.get_template("report.html").render(
            title=self.title,
            subtitle=subtitle(self.findings),
            credit=self.credit,
            findings=self.findings,
            figures=summary_cards(self.findings),
            classes=column_names(self.findings),
            confusion=confusion_rows(self.findings),
            confused=[pair for pair in self.findings["most_confused"] if pair["count"] > 1],
            lowest_recall=lowest_recall(self.findings),
            charts=[
                {"name": name, "curves": list(curves), "svg": line_chart(curves, name)}
                for name, curves in self.curves.items()
            ],
            notes=self.findings["notes"],
            calibration=self.findings["calibration"],
            reliability=reliability_chart(self.findings["calibration"]),
            means=means,
            num_means_left_out=len(self.findings["per_class"]) - sum(mean["is_class"] for mean in means),
            gallery=self.gallery,
            quarantine=self.quarantine[:MAX_QUARANTINE],
            num_quarantine_left_out=max(0, len(self.quarantine) - MAX_QUARANTINE),
            quarantine_note=quarantine_note(self.findings),
            map_size=" by ".join(map(str, self.findings["map_size"])),
            uniform_border=self.findings["border_mass"]["even_map"],
            pointing=self.findings["pointing_game"],
            provenance=provenance(self.findings),
            version=self.findings["versions"]["lightwell"],
        )


def percent(value: float | None) -> str:
    """Format a fraction in percent: ``93.1 %``."""
    return "n/a" if value is None else f"{100 * value:.1f} %"


def interval(value: Sequence[float] | None) -> str:
    """Format an interval of fractions in percent: ``88.0 to 95.2 %``."""
    return "" if value is None else f"{100 * value[0]:.1f} to {100 * value[1]:.1f} %"


def replace_unprintable(value: Any) -> Any:
    """Replace characters that hide or reorder text, such as ESC and right-to-left overrides."""
    if isinstance(value, str) and not isinstance(value, Markup) and not value.isprintable():
        return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in value)
    return value


def subtitle(findings: Mapping[str, Any]) -> str:
    """Return model, split and number of images as one line."""
    split = f"split “{findings['split']}”" if findings["split"] else "all images"
    return (
        f"{findings['model']['name']} on {split}, {findings['num_images']:,} images, "
        f"{findings['num_classes']:,} classes"
    )


def summary_cards(findings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the summary cards at the top of the page."""
    border, counts = findings["border_mass"], findings["counts"]
    quarantined, blank = findings["num_quarantined"], findings["blank_maps"]["predicted"]
    pointing = findings["pointing_game"]
    labelled = findings["num_labelled"]
    cards = [
        card(
            "Images",
            f"{findings['num_images']:,}",
            f"{labelled:,} labelled with a class of the model"
            if labelled < findings["num_images"]
            else "all labelled",
        ),
        card(
            "Accuracy",
            "not measured" if findings["accuracy"] is None else percent(findings["accuracy"]),
            accuracy_note(findings),
        ),
        card("Balanced accuracy", percent(findings["balanced_accuracy"]), "mean recall over classes"),
    ]
    if findings["auroc"] is not None:
        cards.append(card("AUROC", f"{findings['auroc']:.3f}", "one vs. rest, from logits"))
    note = f"uniform map {percent(border['even_map'])}; correct {percent(border['right'])}, wrong {percent(border['wrong'])}"
    if border["difference"] is not None:
        note += f", difference {100 * border['difference']:+.1f} points"
    cards.append(card("Border mass", percent(border["mean"]), note))
    if pointing:
        cards.append(
            card(
                "Pointing game",
                percent(pointing["hit_rate"]),
                f"image centre: {percent(pointing['centre_rate'])}",
            )
        )
    cards.append(card("Empty maps", f"{blank:,}", "images without positive evidence", alert=blank > 0))
    if findings["calibration"]:
        ece = percent(findings["calibration"]["ece"])
        cards.append(card("Calibration error", ece, "expected calibration error (ECE)"))
    read = counts.get("read", 0)
    cards.append(
        card(
            "Quarantined",
            f"{quarantined:,}",
            f"of {read + counts.get('skipped', 0):,} files" if read else "files",
            alert=quarantined > 0,
        )
    )
    return cards


def accuracy_note(findings: Mapping[str, Any]) -> str:
    """Return the confidence interval of the accuracy, or the reason why there is no accuracy."""
    if findings["accuracy"] is None:
        return "no label matches a class of the model" if findings["num_unknown_class"] else "no labels"
    top5 = findings["top5_accuracy"]
    within = "" if top5 is None else f"; top-5 {percent(top5)}"
    return f"95 % interval {interval(findings['accuracy_interval'])}{within}"


def card(name: str, value: str, note: str, alert: bool = False) -> dict[str, Any]:
    """Return one summary card."""
    return {"name": name, "value": value, "note": note, "alert": alert}


def column_names(findings: Mapping[str, Any]) -> list[str]:
    """Return the column names of the confusion matrix."""
    names = [class_name(number, findings["classes"]) for number in range(findings["num_classes"])]
    wide = findings["confusion"] and len(findings["confusion"][0]) > len(names)
    return [*names, "another class"] if wide else names


def confusion_rows(findings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the confusion matrix; empty with too many classes or without labels."""
    if (
        findings["confusion"] is None
        or findings["num_classes"] > MAX_MATRIX_CLASSES
        or not findings["num_labelled"]
    ):
        return []
    rows = []
    for own, counts in enumerate(findings["confusion"]):
        total = sum(counts) or 1
        cells = [
            {"count": count, "share": count / total, "own": own == other}
            for other, count in enumerate(counts)
        ]
        rows.append({"name": class_name(own, findings["classes"]), "cells": cells})
    return rows


def lowest_recall(findings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List the classes with the lowest recall, of those with at least two images."""
    missed = [
        entry
        for entry in findings["per_class"]
        if entry["num_images"] > 1 and entry["recall"] is not None and entry["recall"] < 1
    ]
    return sorted(missed, key=lambda entry: (entry["recall"], -entry["num_images"]))[:MAX_WEAKEST]


def class_means(records: pa.Table, findings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return mean maps by label and by prediction of the largest classes; with many classes, first of all images."""
    labels, predictions = records["label"].to_numpy(), records["prediction"].to_numpy()
    maps, maps_true = (maps_array(records, name, rectified=True) for name in ("map", "map_true"))
    found = []
    if findings["num_classes"] > MAX_MATRIX_CLASSES:
        everything = np.ones(len(labels), np.bool_)
        pictures = mean_pictures(nonempty_maps(maps_true, everything), nonempty_maps(maps, everything))
        found.append({"name": "All images", "note": "", "pictures": pictures, "is_class": False})
    ordered = sorted(findings["per_class"], key=lambda entry: (-entry["num_images"], entry["number"]))
    for entry in ordered[:MAX_MEANS]:
        own = nonempty_maps(maps_true, labels == entry["number"])
        predicted_as = nonempty_maps(maps, predictions == entry["number"])
        note = f"recall {percent(entry['recall'])}"
        pictures = mean_pictures(own, predicted_as)
        found.append({"name": entry["class"], "note": note, "pictures": pictures, "is_class": True})
    return [mean for mean in found if mean["pictures"]]


def mean_pictures(own: NDArray[np.float32], predicted_as: NDArray[np.float32]) -> list[dict[str, str]]:
    """Draw the mean map by label and that by prediction, if there are enough maps."""
    return [
        {"uri": heat_picture(mean_map(small)), "text": f"{how} ({len(small):,})"}
        for how, small in (("by label", own), ("by prediction", predicted_as))
        if len(small) >= MIN_MEAN
    ]


def nonempty_maps(maps: NDArray[np.float32], chosen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the selected maps that are not empty, of maps (N, h, w) with NaN where there is none."""
    picked = maps[chosen]
    return np.asarray(picked[np.nan_to_num(picked).max(axis=(1, 2), initial=0) > 0])


def quarantine_note(findings: Mapping[str, Any]) -> str:
    """Return a sentence about the number of excluded files."""
    counts = findings["counts"]
    return (
        f"{findings['num_quarantined']:,} files could not be used: {counts.get('replaced', 0):,} were replaced in "
        f"their batch and {counts.get('skipped', 0):,} were skipped. "
        "Neither they nor their replacements are part of the metrics above."
    )


def provenance(findings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List model, weights, data and versions of the audit."""
    model = {name: value for name, value in findings["model"].items() if value not in (None, [])}
    classes, weights, index = findings["model_classes"], findings["weights_report"], findings["index"]
    how = {"name": "matched by name", "number": "matched by number", "none": "not matched"}[
        classes["matched_by"]
    ]
    height, width = findings["image_size"]
    loaded = f"{weights['num_loaded']} tensors loaded" if "num_loaded" in weights else ""
    untrained = findings["model"].get("untrained") or ()
    return [
        ("Model", ", ".join(f"{name} {value}" for name, value in model.items())),
        ("Weights", ", ".join(filter(None, (weights["source"], loaded, *weights.get("notes", ()))))),
        ("Untrained layers", ", ".join(untrained) or "none"),
        ("Class names", f"from {classes['names_from']}; {how}, {classes['num_outputs']:,} outputs"),
        ("Target layer", findings["target_layer"]),
        ("Maps explain", findings["explain"]),
        ("Input", f"{height} x {width} pixels"),
        ("Preprocessing", "; ".join(findings["preprocessing"])),
        (
            "Index",
            f"{index['name']} of {index['date']}, {index['rows']:,} rows, fingerprint {index['fingerprint']}",
        ),
        ("Plan", f"fingerprint {findings['plan_fingerprint']}, seed {findings['seed']}"),
        ("Split", findings["split"] or "all"),
        ("Counts", ", ".join(f"{name} {count:,}" for name, count in findings["counts"].items())),
        ("Images with a class not in the model", f"{findings['num_unknown_class']:,}"),
        ("Versions", ", ".join(f"{name} {number}" for name, number in findings["versions"].items())),
    ]
