"""Measures of an audited dataset's files and images, from the records of ``lightwell inspect``."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ....pipeline.errors import PlanError
from ....pipeline.text import quoted
from ..dataset.checks.leakage import correct_predictions, find_leakage
from ..dataset.checks.table_columns import NONE, category_columns, number_columns
from ..dataset.records import RECORDS_SCHEMA, table_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from ..dataset.dataset_table import DatasetTable
    from ..findings.finding import Finding
    from .records import Predictions


def measures_fingerprint(path: Path | None) -> list[str]:
    """Return the hash of a file of records as an addition to a stage's fingerprint; empty without one.

    Raises:
        PlanError: it is not the ``records.parquet`` of an audit of a dataset.
    """
    if path is None:
        return []
    _read(path, ())
    with path.open("rb") as file:
        return [hashlib.file_digest(file, "sha256").hexdigest()]


def read_dataset(path: Path, seed: int) -> DatasetTable:
    """Read the records of an audit of a dataset.

    Raises:
        PlanError: the file is something else.
    """
    records = _read(path, RECORDS_SCHEMA.names)
    return table_of(records, _class_names(records), seed)


def num_unmatched(path: Path, keys: Sequence[str]) -> int:
    """Count the audited images of which a file of records has none.

    Raises:
        PlanError: it has none of them, or is something else.
    """
    known = set(_read(path, ("key",))["key"].to_pylist())
    missing = sum(key not in known for key in keys)
    if keys and missing == len(keys):
        raise PlanError(
            f"dataset_audit: expected records of the images of this plan, got {len(known):,} records with none of their keys "
            f"({quoted(str(keys[0]))}); run `lightwell inspect` on the index of the plan"
        )
    return missing


def measured_columns(table: DatasetTable, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return measures and traces of some images by name: numbers, or texts as objects; NaN or ``none`` where there is none."""
    rows = _rows_of(table, keys)
    known = rows >= 0
    found: dict[str, NDArray[Any]] = {}
    for name, values in number_columns(table).items():
        found[name] = np.where(known, values[rows], np.nan)
    for name, (numbers, names) in category_columns(table).items():
        texts = np.asarray(names, object)[numbers[rows]]
        found[name] = np.where(known, texts, NONE)
    return found


def restated_scores(table: DatasetTable, predictions: Predictions) -> list[Finding]:
    """Return findings about leaked images among those predicted, with the accuracy without them."""
    labelled = predictions.labelled
    correct = correct_predictions(table, predictions.keys[labelled], predictions.right[labelled])
    has_prediction = ~np.isnan(correct)
    splits = {str(name) for name in table.splits[has_prediction].tolist() if name is not None}
    return [
        finding
        for finding in find_leakage(table, correct=correct)
        if finding.group in {f"split = {name}" for name in splits}
    ]


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read columns of a file with all columns of an audit of a dataset."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([RECORDS_SCHEMA.field(name) for name in columns])
    try:
        found = pq.read_schema(path).names
        missing = next((name for name in RECORDS_SCHEMA.names if name not in found), None)
        records = None if missing else pq.read_table(path, columns=schema.names).cast(schema)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _refused(path, f"one that cannot be read ({' '.join(str(error).split())})") from error
    if records is None:
        raise _refused(path, f"a file without the column {missing!r}")
    return records


def _rows_of(table: DatasetTable, keys: Sequence[str]) -> NDArray[np.int64]:
    row_of = {key: row for row, key in enumerate(table.keys.tolist())}
    return np.asarray([row_of.get(key, -1) for key in keys], np.int64)


def _class_names(records: pa.Table) -> list[str]:
    names: dict[int, str] = {}
    for number, name in zip(records["label"].to_pylist(), records["class"].to_pylist(), strict=True):
        if name is not None:
            names[number] = name
    return [names.get(number, f"class {number}") for number in range(max(names, default=-1) + 1)]


def _refused(path: Path, found: str) -> PlanError:
    return PlanError(
        f"dataset_audit: expected records.parquet of `lightwell inspect`, got {found} at {quoted(str(path))}; give that file"
    )
