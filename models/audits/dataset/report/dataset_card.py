"""Dataset card: Markdown with the metadata of the Hugging Face Hub in YAML on top, written from the audit."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from ...findings.finding import Finding

SIZES = (
    (1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"),
)  # fmt: skip
"""The Hub's names of sizes, with their upper limits."""
MAX_CLASSES = 1000
"""More class names are left out of the metadata."""
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~-])")


def dataset_card(title: str, facts: Mapping[str, Any], found: Sequence[Finding]) -> str:
    """Return the card; texts from the dataset are escaped in Markdown and quoted in YAML where needed.

    Args:
        title: of the dataset.
        facts: the content of findings.json.
        found: findings of the audit, the most severe first.
    """
    lines = [
        "---",
        yaml.safe_dump(_metadata(title, facts), sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {escape_markdown(title)}",
        "",
        f"{facts['num_images']:,} images, {facts['num_usable']:,} of which can be read.",
        "",
    ]
    for name, heading in (("classes", "Class"), ("splits", "Split"), ("formats", "Format")):
        if facts[name]:
            lines += [f"| {heading} | Images |", "|---|---:|"]
            lines += [f"| {escape_markdown(str(key))} | {count:,} |" for key, count in facts[name].items()]
            lines.append("")
    lines += ["## Known problems", ""]
    notable = [each for each in found if each.severity != "note"]
    lines += [f"- **{each.severity}**: {escape_markdown(each.sentence)}" for each in notable] or [
        "The audit found none above a note."
    ]
    return "\n".join([*lines, ""])


def _metadata(title: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    classes = list(facts["classes"])
    tasks = ["image-classification"] if classes else []
    tasks += ["object-detection"] if facts.get("num_boxes") else []
    labels = {str(number): str(name) for number, name in enumerate(sorted(classes))}
    found: dict[str, Any] = {
        "pretty_name": title,
        "size_categories": [size_category(facts["num_images"])],
        "task_categories": tasks or ["image-feature-extraction"],
    }
    if 0 < len(classes) <= MAX_CLASSES:
        names = {"class_label": {"names": labels}}
        label = (
            {"name": "labels", "sequence": names}
            if facts.get("is_multi_label")
            else {"name": "label", "dtype": names}
        )
        features = [{"name": "image", "dtype": "image"}, label]
        splits = [{"name": str(name), "num_examples": count} for name, count in facts["splits"].items()]
        found["dataset_info"] = {"features": features} | ({"splits": splits} if splits else {})
    return found


def size_category(num_images: int) -> str:
    """Return the Hub's name of a number of images."""
    return next(
        (name for limit, name in SIZES if num_images < limit), "n>1T" if num_images >= 10**12 else "1B<n<10B"
    )


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it is, on one line, without HTML."""
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))
