"""The stage that writes a picture with its map, and the map as an array, for every image."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ....pipeline.atomic_io import atomic_write
from ....pipeline.compiler.program import Program
from ....pipeline.export.encoding import Encoder
from ....pipeline.jobs.fingerprint import fingerprint_of
from ....pipeline.jobs.stages import Images, Inputs, Process, Source
from .records import MAPS, OVERLAYS, maps_of

if TYPE_CHECKING:
    from ....pipeline.load.samples import ImageSample
    from .config import AuditConfig

OVERLAY_VERSION = 1
"""Increased whenever equal records give different files."""
MAX_PART_IMAGES = 256
MAX_PART_BYTES = 64 << 20

SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "picture": pa.string(),  # file below the output folder: the picture with the evidence for the explained class
        "array": pa.string(),  # numpy file: the signed map at the size of the picture, float16
        "is_photo": pa.bool_(),  # both are of the original picture; else of the model's input
    }
)
ENCODED = pa.schema([*SCHEMA, ("png", pa.large_binary()), ("npy", pa.large_binary())])


@dataclass(frozen=True)
class OverlayStage:
    """Overlays of all images, in the coordinates of the original pictures."""

    audit: AuditConfig
    folder: str
    """Below the output folder."""

    name = OVERLAYS
    needs = (MAPS,)
    schema = SCHEMA
    part_schema = ENCODED

    def fingerprint(self) -> str:
        """Hash what determines the files, besides the maps."""
        return fingerprint_of([OVERLAY_VERSION, self.audit.plan.fingerprint(), self.audit.split, self.folder])

    def source(self, inputs: Inputs) -> Source:  # noqa: ARG002
        """Return the pictures of the split at their full size."""
        return Images(self.audit.plan, self.audit.split)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:
        """Yield a function that draws the maps of pictures; those without a map have no overlay."""
        from ...explain.photo_maps import draw_on_photo

        encoder, program, maps = Encoder("png", 0), Program.compile(self.audit.plan), inputs[MAPS]
        rows = {key: row for row, key in enumerate(maps["key"].to_pylist())}

        def process(samples: Iterable[ImageSample]) -> pa.RecordBatch:
            encoded = []
            for sample in samples:
                row = rows.get(sample.key)
                small = None if row is None else maps_of(maps.slice(row, 1), rectified=False)[0]
                if small is None:
                    continue
                found = draw_on_photo(program, sample.image, small)
                array = io.BytesIO()
                np.save(array, (found.evidence / (np.abs(small).max() or 1)).astype(np.float16))
                name = f"{self.folder}/{quote(sample.key, safe=' ')}"
                encoded.append(
                    {
                        "key": sample.key,
                        "picture": f"{name}.png",
                        "array": f"{name}.npy",
                        "is_photo": found.is_photo,
                        "png": encoder.encode(found.overlay(), sample.key),
                        "npy": array.getvalue(),
                    }
                )
            return pa.RecordBatch.from_pylist(encoded, schema=ENCODED)

        yield process

    def is_full(self, records: pa.Table) -> bool:
        """Return whether the records are enough to be written."""
        num_bytes = sum(pc.sum(pc.binary_length(records[name])).as_py() or 0 for name in ("png", "npy"))
        return records.num_rows >= MAX_PART_IMAGES or num_bytes >= MAX_PART_BYTES

    def part_files(self, records: pa.Table, part: int) -> list[str]:  # noqa: ARG002
        """Return the names of a part's files."""
        return [*records["picture"].to_pylist(), *records["array"].to_pylist()]

    def write_part(self, records: pa.Table, part: int, out: Path) -> pa.Table:  # noqa: ARG002
        """Write a part's files; returns their names.

        Raises:
            OutputError: a file cannot be written.
        """
        (out / self.folder).mkdir(parents=True, exist_ok=True)
        for row in records.to_pylist():
            for name, data in ((row["picture"], row["png"]), (row["array"], row["npy"])):
                with atomic_write(out / name) as file:
                    file.write(data)
        return records.select(SCHEMA.names)
