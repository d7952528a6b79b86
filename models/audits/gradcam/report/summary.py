"""Numbers of the whole audit: cards, each with its baseline, the confusion matrix and the provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ....explain.measures.regions import uniform_shares
from ....report.text import interval, percent
from ..gallery import class_name

if TYPE_CHECKING:
    import pyarrow as pa

MAX_MATRIX_CLASSES = 20
"""Maximum number of classes for a confusion matrix; with more, repeated errors are listed."""
MAX_WEAKEST = 12


def subtitle(findings: Mapping[str, Any]) -> str:
    """Return model, split and number of images as one line."""
    split = f"split “{findings['split']}”" if findings["split"] else "all images"
    return (
        f"{findings['model']['name']} on {split}, {findings['num_images']:,} images, "
        f"{findings['num_classes']:,} classes"
    )


def summary_cards(findings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the summary cards at the top of the page."""
    border, counts, majority = findings["border_mass"], findings["counts"], majority_share(findings)
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
            accuracy_note(findings)
            + ("" if majority is None else f"; the largest class alone: {percent(majority)}"),
        ),
        card(
            "Balanced accuracy",
            percent(findings["balanced_accuracy"]),
            f"mean recall over classes; by guessing {percent(1 / max(1, findings['num_classes']))}",
        ),
    ]
    if findings["auroc"] is not None:
        cards.append(card("AUROC", f"{findings['auroc']:.3f}", "one vs. rest, from logits; by guessing 0.5"))
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


def majority_share(findings: Mapping[str, Any]) -> float | None:
    """Return the accuracy of always predicting the largest class, the baseline of the accuracy; None without labels."""
    known = [entry["num_known"] for entry in findings["per_class"]]
    return max(known) / sum(known) if sum(known) else None


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


def quarantine_note(findings: Mapping[str, Any]) -> str:
    """Return a sentence about the number of excluded files."""
    counts = findings["counts"]
    return (
        f"{findings['num_quarantined']:,} files could not be used: {counts.get('replaced', 0):,} were replaced in "
        f"their batch and {counts.get('skipped', 0):,} were skipped. "
        "Neither they nor their replacements are part of the metrics above."
    )


def place_rows(records: pa.Table, findings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the mean share of the evidence in border, corners and quadrants, beside that of a uniform map."""
    height, width = findings["image_size"]
    rows = []
    for name, uniform in uniform_shares((height, width)).items():
        values = np.asarray(records[name].to_numpy(), np.float64)
        finite = values[np.isfinite(values)]
        if len(finite):
            part, _, place = name.partition("_")
            words = part if place == "mass" else f"{place.replace('_', ' ')} {part}"
            rows.append({"name": words, "mean": float(finite.mean()), "uniform": uniform})
    return rows


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
        ("Method", findings["method"]),
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
