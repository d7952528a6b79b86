"""Properties of files and images that the images of a finding share and others of their class, or other classes, do not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...dataset.checks.predictive_properties import STATED
from ...findings.fdr import q_values
from ...findings.nulls import count_p_values
from ...findings.slices import conditions_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ...findings.finding import Finding
    from .image_table import ImageTable

DESCRIBED = ("region", "cluster", "frame", "profile", "confident_error")
MIN_IMAGES = 8
"""Fewest images of a finding, and fewest others of the class, that are compared."""
MAX_Q = 0.01
MIN_DIFFERENCE = 0.3
"""Of the shares of images with a property."""
MIN_DIFFERENCE_OF_CLASSES = 0.5
"""Likewise, where the images of a finding are compared with other classes."""
STORED = STATED - {"width", "height", "channels", "orientation"}
"""Properties that no class has by what it shows."""
MAX_TRAITS = 2


@dataclass(frozen=True, slots=True)
class Trait:
    """A condition that most images of a finding meet."""

    column: str
    text: str
    """For example ``jpeg_quality is 75``."""
    share: float
    """Of the images of the finding."""
    other_share: float
    """Of the images that are compared with."""
    q: float
    of_class: bool = False
    """Whether the whole class has it and is compared with other classes."""


def describe_findings(findings: Sequence[Finding], table: ImageTable) -> list[Finding]:
    """Add the properties that their images share to the sentences of findings about a class.

    Args:
        findings: with the keys of all images that show them, or of the strongest.
        table: of the audit.
    """
    row_of = {str(key): row for row, key in enumerate(table.keys.tolist())}
    described = []
    for each in findings:
        if each.kind in DESCRIBED and each.class_number >= 0:
            own = np.asarray([row_of[key] for key in each.keys if key in row_of], np.intp)
            found = traits_of(table, own, each.class_number)
            texts = [each.sentence, *(_sentence(one, len(own), each) for one in found)]
            described.append(replace(each, sentence=" ".join(texts)))
        else:
            described.append(each)
    return described


def traits_of(table: ImageTable, own: NDArray[np.intp], class_number: int) -> list[Trait]:
    """Return the properties that some images of a class have more often than its other images, the surest first.

    If there are none, how the images were stored is compared with other classes, since the whole class may have the property.
    Each property is tested by Fisher's exact test; q-values are over all properties of a comparison.

    Args:
        table: of the audit.
        own: rows of the images.
        class_number: of the class with whose other images they are compared.
    """
    rows = np.union1d(np.flatnonzero(table.classes == class_number), own)
    found = _compare(table.facts, rows, np.isin(rows, own), MIN_DIFFERENCE)
    if found:
        return found
    stored = {name: values for name, values in table.facts.items() if name in STORED}
    rows = np.union1d(np.flatnonzero((table.classes >= 0) & (table.classes != class_number)), own)
    found = _compare(stored, rows, np.isin(rows, own), MIN_DIFFERENCE_OF_CLASSES)
    return [replace(each, of_class=True) for each in found]


def _compare(
    facts: Mapping[str, NDArray[Any]], rows: NDArray[np.intp], is_own: NDArray[np.bool_], least: float
) -> list[Trait]:
    """Return the conditions that some of the rows meet more often than the others, the surest first."""
    if min(int(is_own.sum()), int((~is_own).sum())) < MIN_IMAGES:
        return []
    conditions = conditions_of({name: values[rows] for name, values in facts.items()})
    if not conditions:
        return []
    meets = np.stack([condition.rows for condition in conditions])
    counts = (meets & is_own).sum(axis=1)
    p = count_p_values(counts[None], np.array([is_own.sum()]), meets.sum(axis=1), len(rows))[0]
    q = q_values(p)
    shares, others = counts / is_own.sum(), (meets & ~is_own).sum(axis=1) / (~is_own).sum()
    found: dict[str, Trait] = {}
    for place in np.lexsort((-(shares - others), p)).tolist():
        condition = conditions[place]
        if q[place] <= MAX_Q and shares[place] - others[place] >= least:
            trait = Trait(
                condition.column,
                condition.text,
                float(shares[place]),
                float(others[place]),
                float(q[place]),
            )
            found.setdefault(condition.column, trait)
    return list(found.values())[:MAX_TRAITS]


def _sentence(trait: Trait, num_own: int, finding: Finding) -> str:
    others = "images of other classes" if trait.of_class else f"other images of {finding.class_name}"
    which = "images that show it" if num_own == finding.num_concerned else "listed images"
    chance = "q < 0.001" if trait.q < 0.001 else f"q = {trait.q:.2g}"
    return (
        f"{trait.text} for {100 * trait.share:.0f} % of the {num_own} {which} and {100 * trait.other_share:.0f} % of the "
        f"{others} ({chance})."
    )
