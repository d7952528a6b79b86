"""Checks of a dataset audit over made records of many images: CPU seconds and peak memory.

Run in ``tests``: ``python -m benchmarks.inspect_scale --rows 100000``
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from lightwell.models.audits.dataset.checks.all_checks import run_checks
from lightwell.models.audits.dataset.records import RECORDS_SCHEMA, table_of

NUM_CLASSES = 100
COPIES = 0.01
"""Share of images that are copies of another."""


def made_records(num_rows: int) -> pa.Table:
    """Return records of images with random measures and hashes."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, NUM_CLASSES, num_rows)
    rows = np.arange(num_rows)
    source = np.where(generator.random(num_rows) < COPIES, generator.integers(0, num_rows, num_rows), rows)
    fixed = {
        "key": [f"{label:03}/{row:09}.jpg" for row, label in enumerate(labels.tolist())],
        "class": [f"{label:03}" for label in labels.tolist()],
        "label": labels,
        "split": np.array(["train"] * 8 + ["val", "test"])[generator.integers(0, 10, num_rows)],
        "problem": [None] * num_rows,
        "content_hash": [f"{row:032x}" for row in source.tolist()],
        "width": generator.choice([480, 500, 640, 1024], num_rows),
        "height": generator.choice([333, 375, 480, 768], num_rows),
        "bytes": generator.integers(10_000, 400_000, num_rows),
        "format": ["jpeg"] * num_rows,
        "mode": ["RGB"] * num_rows,
    }
    columns = [
        pa.array(fixed[field.name], field.type)
        if field.name in fixed
        else _column(field.type, generator, source)
        for field in RECORDS_SCHEMA
    ]
    return pa.table(columns, schema=RECORDS_SCHEMA)


def _column(kind: pa.DataType, generator: np.random.Generator, source: np.ndarray) -> pa.Array:
    num_rows = len(source)
    if pa.types.is_fixed_size_binary(kind):
        values = generator.integers(0, 256, (num_rows, kind.byte_width), np.uint8)[source]
        return pa.FixedSizeBinaryArray.from_buffers(kind, num_rows, [None, pa.py_buffer(values.tobytes())])
    if pa.types.is_fixed_size_list(kind):
        shares = generator.dirichlet(np.ones(kind.list_size), num_rows).astype(np.float32)[source]
        return pa.FixedSizeListArray.from_arrays(pa.array(shares.ravel()), kind.list_size)
    if pa.types.is_floating(kind):
        return pa.array((60 * generator.lognormal(0, 0.3, num_rows))[source], kind)
    if pa.types.is_integer(kind):
        return pa.array(generator.integers(1, 100, num_rows)[source], kind)
    return pa.nulls(num_rows, kind)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Print CPU seconds, also per million images, and the peak memory of this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args(argv).rows
    records = made_records(rows)
    started = time.process_time()
    findings, fixes = run_checks(table_of(records, [f"{number:03}" for number in range(NUM_CLASSES)], 0))
    seconds = time.process_time() - started
    found = {
        "rows": rows,
        "cpu_s": round(seconds, 2),
        "cpu_s_per_million": round(seconds * 1e6 / rows, 1),
        "peak_bytes_per_row": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // rows,
        "findings": len(findings),
        "fixes": len(fixes),
    }
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return found


if __name__ == "__main__":
    main()
