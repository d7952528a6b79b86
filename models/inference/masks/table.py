"""Predicted masks of a job as a table: where each is, and the share of each class."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ....pipeline.atomic_io import atomic_write, write_text
from ....pipeline.formats.mask_headers import IGNORED
from ..table import CSV_NAME, PARQUET_NAME, reasons_of_failures

if TYPE_CHECKING:
    from ..config import ScoringJob


@dataclass(frozen=True)
class MaskTable:
    """Records of every picture that could be used, and the reasons for the others."""

    classes: tuple[str, ...]
    records: pa.Table
    """Of ``stage.RECORDS``, a row for each picture."""
    failed: Mapping[str, str]
    """Reason by key of the pictures that could not be used."""

    @classmethod
    def of(
        cls,
        job: ScoringJob,
        records: pa.Table,
        classes: tuple[str, ...],
        quarantine: Sequence[Mapping[str, Any]],
    ) -> MaskTable:
        """Collect the records of a job."""
        failed = reasons_of_failures(job, records["key"].to_pylist(), quarantine)
        return cls(classes, records, failed)

    @property
    def counts(self) -> np.ndarray:
        """int64, shape (N, classes): pixels of each class."""
        flat = self.records["counts"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat, dtype=np.int64).reshape(-1, len(self.classes))

    @property
    def shares(self) -> np.ndarray:
        """float32, shape (N, classes): shares of the pixels that have a class."""
        return shares_of(self.counts)

    def summary(self) -> dict[str, Any]:
        """Return the numbers of pictures, and the share of each class in all of their pixels."""
        total = shares_of(self.counts.sum(axis=0, keepdims=True))[0]
        return {
            "images": len(self.records) + len(self.failed),
            "predicted": len(self.records),
            "unusable": len(self.failed),
            "shares": dict(zip(self.classes, total.tolist(), strict=True)),
        }

    def write(self, folder: Path) -> None:
        """Write ``predictions.parquet`` and ``predictions.csv``; pictures that could not be used come last.

        Raises:
            OutputError: a file cannot be written.
        """
        shares = self.shares
        empty = pa.nulls(len(self.failed))
        flat = pa.array(shares.reshape(-1))
        lists = pa.FixedSizeListArray.from_arrays(flat, len(self.classes)).cast(pa.list_(pa.float32()))
        columns = {
            "key": pa.array([*self.records["key"].to_pylist(), *self.failed], pa.string()),
            **{
                name: pa.chunked_array([*self.records[name].chunks, empty.cast(self.records[name].type)])
                for name in ("mask", "height", "width")
            },
            "shares": pa.concat_arrays([lists, pa.nulls(len(self.failed), lists.type)]),
            "error": pa.array([*([None] * len(self.records)), *self.failed.values()], pa.string()),
        }
        table = pa.table(columns).replace_schema_metadata({"classes": json.dumps(self.classes)})
        with atomic_write(folder / PARQUET_NAME) as file:
            pq.write_table(table, file)
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(("key", "mask", *(f"share of {name}" for name in self.classes), "error"))
        for key, mask, row in zip(
            self.records["key"].to_pylist(), self.records["mask"].to_pylist(), shares.tolist(), strict=True
        ):
            lines.writerow((key, mask or "", *(f"{share:.6g}" for share in row), ""))
        lines.writerows((key, "", *("" for _ in self.classes), reason) for key, reason in self.failed.items())
        write_text(folder / CSV_NAME, text.getvalue())


def shares_of(counts: np.ndarray) -> np.ndarray:
    """Return the share of each class in the pixels of each row: float32; 0 without pixels."""
    totals = counts.sum(axis=1, keepdims=True)
    return np.asarray(counts / np.maximum(totals, 1), dtype=np.float32)


def count_classes(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the pixels of each class: int64, shape (classes,)."""
    return np.bincount(mask.reshape(-1), minlength=IGNORED + 1)[:num_classes]
