"""Print where each transform of the installed Albumentations runs: ``python -m lightwell.pipeline.transform.dali.transforms_md``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.metadata import version

from ...policy.registry import load_albumentations, transform_classes
from .op_registry import lowering_of
from .unsupported import ALBUMENTATIONS_ONLY, EXCEPTIONS

ON_CPU_AND_GPU, ON_GPU, ALBUMENTATIONS_ONLY_LABEL = (
    "DALI, on CPU and GPU",
    "DALI, on a GPU only",
    "Albumentations",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: a transform, where it runs, its tolerance and remarks."""

    name: str
    where: str
    tolerance: str
    remark: str


def leaf_names() -> list[str]:
    """Return the transforms of the installed Albumentations, without compositions and abstract bases."""
    package = load_albumentations()
    return sorted(
        name for name, cls in transform_classes().items() if not issubclass(cls, package.BaseCompose)
    )


def rows() -> list[Row]:
    """Return a row for each transform.

    Raises:
        KeyError: a transform is neither lowered nor listed in ``unsupported``; add it there.
    """
    return [_row(name) for name in leaf_names()]


def _row(name: str) -> Row:
    lowering = lowering_of(name)
    if lowering is None:
        return Row(name, ALBUMENTATIONS_ONLY_LABEL, "", f"It {ALBUMENTATIONS_ONLY[name]}.")
    exceptions = EXCEPTIONS.get(name, "")
    remarks = (
        "A different algorithm; only with `lowering: approximate`." if lowering.approximate else "",
        f"{lowering.gpu_only}." if lowering.gpu_only else "",
        f"In Albumentations: {exceptions}." if exceptions else "",
    )
    where = ON_GPU if lowering.gpu_only else ON_CPU_AND_GPU
    return Row(name, where, str(lowering.tolerance), " ".join(filter(None, remarks)))


def markdown() -> str:
    """Return the page as Markdown."""
    all_rows = rows()
    count = {
        where: sum(row.where == where for row in all_rows)
        for where in (ON_CPU_AND_GPU, ON_GPU, ALBUMENTATIONS_ONLY_LABEL)
    }
    lines = [
        "# Transforms",
        "",
        f"Where each of the {len(all_rows)} transforms of Albumentations {version('albumentations')} runs:"
        f" {count[ON_CPU_AND_GPU]} in DALI on CPU and GPU, {count[ON_GPU]} in DALI on a GPU only,"
        f" {count[ALBUMENTATIONS_ONLY_LABEL]} in Albumentations alone.",
        "Compositions run on both. Parameters are always sampled by Albumentations.",
        "",
        "The tolerance is the largest difference from Albumentations on uint8 pixels, in the worst case over images;"
        " tests verify it with DALI's CPU operators, and on a GPU for transforms without one.",
        "With an option named under remarks the transform runs in Albumentations, and so does one with a different"
        " algorithm unless the plan says `lowering: approximate`.",
        "",
        "This page is generated: `make transforms`.",
        "",
        "| transform | runs in | tolerance | remarks |",
        "|---|---|---|---|",
        *(f"| {row.name} | {row.where} | {row.tolerance} | {row.remark} |" for row in all_rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
