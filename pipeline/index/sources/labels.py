"""Labels of tables and shards: class numbers or class names, one or several per image.

Labels are class names unless every value of the column is a plain integer (``0``, ``7``, ``12``; no leading zeros, signs or
exponents; ``7.0`` is accepted, as pandas writes it beside missing values) and the integers are plausible class numbers: all
below ``PLAUSIBLE_CLASSES``, or at least half of the numbers up to the largest one occur. Integer columns of Parquet follow
the same rule. Empty cells are unlabelled, and so is -1 among class numbers.
"""

from __future__ import annotations

import ast
import json
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Literal

from ...errors import SourceError
from .remarks import Remarks

LabelKind = Literal["auto", "text", "numbers"]
"""``auto`` applies the rule above; the others override it."""

SEPARATOR = "|"
"""Separates several labels of one image, if any cell of the column contains it."""
MAX_CLASSES = 1_000_000
PLAUSIBLE_CLASSES = 10_000
MAX_NAME_LENGTH = 1_000

_INTEGER = re.compile(r"-1|0|[1-9][0-9]{0,17}")
_INTEGRAL_FLOAT = re.compile(r"(-1|0|[1-9][0-9]{0,17})\.0+")
_DECIMAL = re.compile(r"-?[0-9]*\.?[0-9]+")
_DIGITS = re.compile(r"-?[0-9]{1,18}(\.0+)?")
_MISSING = frozenset({"nan", "na", "n/a", "null", "none", "<na>", "nat"})
_TRUE = frozenset({"1", "1.0", "true", "yes"})
_FALSE = frozenset({"0", "0.0", "false", "no", ""})


@dataclass(frozen=True)
class Labels:
    """Labels of samples, in order."""

    numbers: list[int]
    """Index into ``classes``; -1 for none, and for all samples if there are sets."""
    classes: tuple[str, ...]
    sets: list[list[int] | None] | None = None
    """Multi-label: sorted class numbers per image, or None for an unlabelled one. None for single-label data."""


def read_labels(
    cells: Sequence[Any],
    names: Sequence[Any] | None,
    column: str,
    *,
    remarks: Remarks,
    kind: LabelKind = "auto",
    separator: str | None = None,
) -> Labels:
    """Convert label cells to class numbers and names.

    Args:
        cells: text, numbers, booleans, lists of these, or None.
        names: cells of a column with the names of class numbers, if any.
        column: name of the column, for messages.
        remarks: counts what is unlabelled, converted or assumed.
        kind: whether numbers are class numbers.
        separator: separates several labels in a cell; by default ``SEPARATOR``. Empty: a cell is one label.

    Raises:
        SourceError: non-integer numbers, more than ``MAX_CLASSES`` classes, or text although ``kind`` is ``numbers``.
    """
    values = [_clean(cell, remarks) for cell in cells]
    separator = SEPARATOR if separator is None else separator
    values, is_multi = _split_cells(values, separator, column, remarks)
    if not is_multi:
        numbers, classes = _number_labels(list(values), names, column, remarks, kind)
        remarks.add("unlabelled", f"samples whose {column!r} is empty or -1", count=numbers.count(-1))
        return Labels(numbers, classes)
    flat = [one for value in values for one in value or ()]
    numbers, classes = _number_labels(flat, None, column, remarks, kind)
    sets: list[list[int] | None] = []
    start = 0
    for value in values:
        size = 0 if value is None else len(value)
        sets.append(None if value is None else sorted(set(numbers[start : start + size]) - {-1}))
        start += size
    remarks.add("unlabelled", f"samples whose {column!r} is empty", count=sets.count(None))
    return Labels([-1] * len(cells), classes, sets)


def read_label_columns(columns: Mapping[str, Sequence[Any]], remarks: Remarks) -> Labels:
    """Read multi-hot labels: one column per class with 1, or 0 or an empty cell.

    A row with any other value is unlabelled.

    Args:
        columns: cells by class name, all of the same length.
        remarks: counts invalid rows.
    """
    sets: list[list[int] | None] = []
    for cells in zip(*columns.values(), strict=True):
        texts = ["" if cell is None or cell != cell else str(cell).strip().lower() for cell in cells]  # noqa: PLR0124 - NaN
        if all(text in _TRUE or text in _FALSE for text in texts):
            sets.append([number for number, text in enumerate(texts) if text in _TRUE])
        else:
            wrong = next(text for text in texts if text not in _TRUE and text not in _FALSE)
            remarks.add("unlabelled", "samples with a class column that is neither 0 nor 1", wrong)
            sets.append(None)
    return Labels([-1] * len(sets), tuple(columns), sets)


def note_similar_classes(classes: Sequence[str], remarks: Remarks) -> None:
    """Note classes whose names differ only in case, spaces or Unicode form; they remain separate classes."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in classes:
        groups["".join(unicodedata.normalize("NFKC", name).casefold().split())].append(name)
    for group in groups.values():
        if len(group) > 1:
            remarks.add(
                "assumed",
                "groups of classes to be different whose names differ only in case, spaces or Unicode form",
                " / ".join(group),
            )


def _clean(cell: Any, remarks: Remarks) -> Any:
    """Normalize a cell to None, stripped text, an integer, a non-integer float, or a list of these."""
    if cell is None or isinstance(cell, int):
        return str(cell) if isinstance(cell, bool) or (cell and abs(cell) >= 2**63) else cell
    if isinstance(cell, float | Decimal):
        return _clean_number(cell)
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", "backslashreplace")
    if isinstance(cell, date):
        cell = str(cell)
    if isinstance(cell, str):
        text = cell.encode("utf-8", "backslashreplace").decode().strip()
        if text != cell and text:
            remarks.add("converted", "labels that had spaces around them", repr(cell))
        if len(text) > MAX_NAME_LENGTH:
            remarks.add("converted", f"labels longer than {MAX_NAME_LENGTH:,} characters to no label", text)
            return None
        return text or None
    if isinstance(cell, list | tuple):
        cleaned = [_clean(one, remarks) for one in cell]
        if not any(isinstance(one, list) for one in cleaned):
            return [one for one in cleaned if one is not None]
    remarks.add("converted", "labels that are neither text nor numbers to no label", type(cell).__name__)
    return None


def _clean_number(cell: float | Decimal) -> int | float | None:
    if math.isnan(cell):
        return None
    is_integral = math.isfinite(cell) and -(2**63) < cell < 2**63 and cell == int(cell)
    return int(cell) if is_integral else float(cell)


def _split_cells(values: list[Any], separator: str, column: str, remarks: Remarks) -> tuple[list[Any], bool]:
    """Split cells with several labels into lists; return the cells and whether there are any lists."""
    texts = [value for value in values if isinstance(value, str)]
    if texts and len(texts) == sum(value is not None for value in values):
        if all(text.startswith("[") and text.endswith("]") for text in texts):
            listed = [None if value is None else _parse_list(value) for value in values]
            if all(one is not None for one, value in zip(listed, values, strict=True) if value is not None):
                remarks.add(
                    "assumed", f"column {column!r} to hold lists with the labels of each image", texts[0]
                )
                return [None if one is None else _clean(one, remarks) for one in listed], True
        elif separator and (several := [text for text in texts if separator in text]):
            remarks.add(
                "assumed", f"column {column!r} to hold several labels parted by {separator!r}", several[0]
            )
            return [None if value is None else _split_text(value, separator) for value in values], True
        _note_comma_separators(texts, column, remarks)
    if any(isinstance(value, list) for value in values):
        return [value if isinstance(value, list | None) else [value] for value in values], True
    return values, False


def _split_text(text: str, separator: str) -> list[str]:
    return [part for part in map(str.strip, text.split(separator)) if part]


def _parse_list(text: str) -> list[Any] | None:
    """Parse a list in JSON or Python notation; None if it is neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list):
            return found
    return None


def _note_comma_separators(texts: Iterable[str], column: str, remarks: Remarks) -> None:
    labels = set(texts)
    lists = {label: set(_split_text(label, ",")) for label in labels if "," in label}
    if not lists:
        return
    alone = labels - lists.keys()
    for label, parts in sorted(lists.items()):
        if len(parts) > 1 and parts <= alone:
            what = f"label in column {column!r} to be one class; a label separator ',' reads it as several"
            remarks.add("assumed", what, label)
            return


def _number_labels(
    values: list[Any], names: Sequence[Any] | None, column: str, remarks: Remarks, kind: LabelKind
) -> tuple[list[int], tuple[str, ...]]:
    """Map labels to class numbers, by the rule of this module or by ``kind``."""
    unique_values = {value for value in values if value is not None}
    numbers = (
        None if kind == "text" else _class_numbers(unique_values, column, remarks, forced=kind == "numbers")
    )
    if numbers is not None:
        labels = [-1 if value is None else numbers[value] for value in values]
        return labels, _class_names(labels, names)
    fraction = _find_fraction(unique_values) if kind == "auto" else None
    if fraction is not None:
        raise SourceError(
            f"column {column!r}: expected class names or whole numbers, got {fraction!r}; a continuous target is not "
            "supported: name a column of classes, or take the labels as text (--labels text)"
        )
    classes = tuple(sorted({str(value) for value in unique_values}))
    if len(classes) > MAX_CLASSES:
        raise SourceError(
            f"column {column!r}: expected at most {MAX_CLASSES:,} classes, got {len(classes):,}; name the column of classes"
        )
    for name in classes:
        if name.lower() in _MISSING or name == "-1":
            remarks.add("assumed", "class names to be classes that often mean a missing label", name)
    number_of = {name: number for number, name in enumerate(classes)}
    return [-1 if value is None else number_of[str(value)] for value in values], classes


def _class_numbers(
    unique_values: set[Any], column: str, remarks: Remarks, *, forced: bool
) -> dict[Any, int] | None:
    """Return the class number of every value, -1 for a missing label; None if the values are names."""
    present = {value for value in unique_values if not _is_missing(value)}
    form = _DIGITS if forced else None
    found: dict[Any, int] = dict.fromkeys(unique_values - present, -1)
    for value in present:
        number = _parse_integer(value, form)
        if number is None or number < -1:
            if forced:
                raise SourceError(
                    f"column {column!r}: expected class numbers, got {value!r}; write --labels text (label_kind='text')"
                )
            if isinstance(value, int):
                _note_ids(unique_values, column, remarks)
            return None
        found[value] = number
    numbers = set(found.values()) - {-1}
    largest = max(numbers, default=0)
    if largest >= MAX_CLASSES and forced:
        raise SourceError(
            f"column {column!r}: expected class numbers below {MAX_CLASSES:,}, got {largest:,}; write --labels text (label_kind='text')"
        )
    is_dense = 2 * len(numbers) > largest
    if not forced and (largest >= MAX_CLASSES or (largest >= PLAUSIBLE_CLASSES and not is_dense)):
        _note_ids(unique_values, column, remarks)
        return None
    if not is_dense and not forced and largest >= 2 * len(numbers) + 10:
        what = f"values of column {column!r} to be class numbers 0..{largest:,}, of which few occur"
        remarks.add("assumed", what, count=len(numbers))
    if any(isinstance(value, str) and not _INTEGER.fullmatch(value) for value in present):
        example = min(value for value in present if isinstance(value, str) and not _INTEGER.fullmatch(value))
        remarks.add("converted", f"values of column {column!r} to class numbers", example, count=len(present))
    remarks.add(
        "converted",
        f"values of column {column!r} that mean a missing label to no label",
        ", ".join(sorted(map(str, unique_values - present))),
        count=len(unique_values - present),
    )
    return found


def _note_ids(unique_values: set[Any], column: str, remarks: Remarks) -> None:
    what = f"numbers of column {column!r} to be names, since they cannot be class numbers"
    remarks.add("assumed", what, min(map(str, unique_values)), count=len(unique_values))


def _is_missing(value: Any) -> bool:
    return isinstance(value, str) and value.lower() in _MISSING


def _find_fraction(unique_values: set[Any]) -> Any:
    """Return a non-integer value if all values are numbers; None if some are names or all are integers."""
    texts = {value for value in unique_values if isinstance(value, str) and not _is_missing(value)}
    if not all(map(_DECIMAL.fullmatch, texts)):
        return next((value for value in unique_values if isinstance(value, float)), None)
    fractions: list[Any] = [value for value in unique_values if isinstance(value, float)]
    return next(iter(fractions or sorted(text for text in texts if not float(text).is_integer())), None)


def _parse_integer(value: Any, form: re.Pattern[str] | None) -> int | None:
    """Return the value as an integer if it is a plain one, else None."""
    if isinstance(value, int):
        return value
    if not isinstance(value, str):
        return None
    if form is not None:
        return int(value.partition(".")[0]) if form.fullmatch(value) else None
    if _INTEGER.fullmatch(value) or _INTEGRAL_FLOAT.fullmatch(value):
        return int(value.partition(".")[0])
    return None


def _class_names(labels: Sequence[int], names: Sequence[Any] | None) -> tuple[str, ...]:
    known: dict[int, str] = {}
    for label, name in zip(labels, names or [], strict=False):
        if label < 0 or name is None or name == "":
            continue
        if known.setdefault(label, str(name)) != str(name):
            known = {}  # two names for a class: the column holds something else, such as file names
            break
    return tuple(known.get(number, str(number)) for number in range(max(labels, default=-1) + 1))
