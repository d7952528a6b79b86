"""What ``scale`` measures, each part in a process of its own: ``python -m benchmarks.scale_parts PART SIZE SCRATCH``."""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lightwell.pipeline.index.index import CLASSES, SCHEMA, Index
from lightwell.pipeline.index.mmap_index import CHUNK_ROWS, ChunkedTable
from lightwell.pipeline.memory.estimates import SampleSizes
from lightwell.pipeline.monitor.quarantine import (
    Quarantine,
    QuarantineEntry,
    append_quarantine,
    write_quarantine,
)
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.sampler.permutation import Permutation
from lightwell.pipeline.sampler.position import batches_before, make_position
from lightwell.pipeline.sampler.schedule import Schedule

BATCH = 256
NUM_TIMED = 200
NUM_WARM, NUM_STREAMED = 200, 1000
NUM_CLASSES = 1000
NUM_CHUNKS = -(-(10**9) // CHUNK_ROWS)
"""In which a billion rows lie."""
NUM_FRESH = 1000
"""Bad files that are added to a list."""
Found = dict[str, float]


def make_index(num_rows: int) -> Index:
    """Make an index as ImageNet in a bucket would have it, key for key, of any size."""
    numbers = np.arange(num_rows)
    random = np.random.default_rng(7)
    labels = numbers * NUM_CLASSES // num_rows
    folder = pc.binary_join_element_wise("n", pc.utf8_lpad(pa.array(labels).cast(pa.string()), 8, "0"), "")
    name = pc.binary_join_element_wise(folder, pa.array(numbers).cast(pa.string()), "_")
    key = pc.binary_join_element_wise("train", folder, pc.binary_join_element_wise(name, ".JPEG", ""), "/")
    columns = {
        "key": key,
        "uri": pc.binary_join_element_wise("s3://pictures/imagenet", key, "/"),
        "bytes": pa.array(random.integers(20_000, 200_000, num_rows)),
        "mtime_ns": pa.array(random.integers(1 << 60, 1 << 61, num_rows)),
        "etag": pa.array(random.integers(1 << 60, 1 << 61, num_rows)).cast(pa.string()),
        "width": pa.array(random.integers(300, 600, num_rows), pa.int32()),
        "height": pa.array(random.integers(300, 600, num_rows), pa.int32()),
        "channels": pa.array(np.full(num_rows, 3), pa.int8()),
        "mode": pa.array(np.full(num_rows, "RGB")),
        "format": pa.array(np.full(num_rows, "JPEG")),
        "orientation": pa.array(np.ones(num_rows), pa.int8()),
        "label": pa.array(labels),
        "split": pa.array(np.where(numbers % 10, "train", "val")),
        "status": pa.array(np.full(num_rows, "ok")),
    }
    arrays = [columns.get(field.name, pa.nulls(num_rows, field.type)) for field in SCHEMA]
    classes = tuple(f"n{number:08}" for number in range(NUM_CLASSES))
    schema = SCHEMA.with_metadata({CLASSES: json.dumps(classes).encode()})
    return Index(
        pa.table(
            [column.cast(field.type) for column, field in zip(arrays, SCHEMA, strict=True)], schema=schema
        ),
        classes,
    )


def peak_bytes() -> int:
    """The most this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def now_bytes() -> int:
    """What this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def own_bytes() -> int:
    """What this process has in memory that no other shares, and the system cannot drop."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def write(num_rows: int, scratch: Path) -> Found:
    """Write the index that other parts read."""
    path = index_of(num_rows, scratch)
    make_index(num_rows).save(path)
    return {"parquet_bytes_per_row": path.stat().st_size / num_rows}


def load(num_rows: int, scratch: Path) -> Found:
    """Load an index and choose a split, as a driver and each worker does."""
    before = now_bytes()
    started = time.process_time()
    index = Index.load(index_of(num_rows, scratch))
    loaded = time.process_time()
    rows = index.rows("train")
    chosen = time.process_time()
    return {
        "load_cpu_s": loaded - started,
        "index_bytes_per_row": index.table.nbytes / num_rows,
        "load_peak_bytes_per_row": (peak_bytes() - before) / num_rows,
        "split_cpu_s": chosen - loaded,
        "split_bytes_per_row": rows.nbytes / len(rows),
    }


def make_mapped(num_rows: int, scratch: Path) -> Found:
    """Make the file that processes share, as the first on a node does."""
    before, started = now_bytes(), time.process_time()
    Index.open(index_of(num_rows, scratch), min_rows=1)
    return {
        "map_cpu_s": time.process_time() - started,
        "map_peak_bytes": max(0, peak_bytes() - before),
        "mapped_file_bytes_per_row": mapped_of(num_rows, scratch).stat().st_size / num_rows,
    }


def mapped(num_rows: int, scratch: Path) -> Found:
    """Open an index that is mapped, choose a split and read rows, as every other process of a node does."""
    before, started = own_bytes(), time.process_time()
    index = Index.open(index_of(num_rows, scratch), min_rows=1)
    index.fingerprint()
    opened = time.process_time()
    step = -(-num_rows // NUM_CHUNKS)
    parts = [index.table.slice(first, step) for first in range(0, num_rows, step)]
    table, rows = ChunkedTable(pa.concat_tables(parts)), index.rows("train")
    batches = np.random.default_rng(7).choice(rows, (NUM_TIMED, BATCH))
    chosen = time.process_time()
    for batch in batches:
        table.take(batch)
    taken = time.process_time()
    SampleSizes.of(index).largest(rows, BATCH)
    held = own_bytes() - before
    return {
        "mapped_open_cpu_s": opened - started,
        "mapped_own_bytes_per_row": held / num_rows,
        "mapped_batch_cpu_s": (taken - chosen) / NUM_TIMED,
    }


def fingerprint(num_rows: int, scratch: Path) -> Found:
    """Hash an index, as a driver and each worker does once."""
    index = Index.load(index_of(num_rows, scratch))
    before = now_bytes()
    started = time.process_time()
    index.fingerprint()
    return {
        "fingerprint_cpu_s": time.process_time() - started,
        "fingerprint_peak_bytes_per_row": max(0, peak_bytes() - before) / num_rows,
    }


def schedule(num_rows: int, scratch: Path) -> Found:
    """Lay out an epoch, compute batches of it, and take it up in the middle of the hundredth."""
    rows = np.arange(num_rows)
    started = time.process_time()
    found = Schedule(rows, BATCH, seed=7, shuffle=True, num_epochs=200)
    made = time.process_time()
    numbers = np.random.default_rng(7).integers(0, found.num_batches, NUM_TIMED)
    found.batch(0)  # the first compiles nothing, but warms the caches
    began = time.process_time()
    for number in numbers:
        found.batch(int(number))
    ended = time.process_time()
    view = View(shuffle=True, num_epochs=200)
    position = make_position(view, plan="0" * 16, epoch=100, step=found.num_steps // 2)
    text = json.dumps(position)
    resumed = time.process_time()
    number = batches_before(json.loads(text), view, plan="0" * 16, num_steps=found.num_steps)
    found.batch(number)
    return {
        "schedule_cpu_s": made - started,
        "schedule_bytes_per_row": rows.nbytes / num_rows,
        "batch_cpu_s": (ended - began) / NUM_TIMED,
        "resume_cpu_s": time.process_time() - resumed,
        "position_bytes": len(text),
    }


def permutation(num_rows: int, scratch: Path) -> Found:
    """Shuffle without any array of rows: what is left of a batch's cost where the rows are all of them."""
    found = Permutation.from_seed("shuffle", 7, 0, num_rows)
    places = np.random.default_rng(7).integers(0, num_rows, (NUM_TIMED, BATCH))
    found(places[0])
    before = now_bytes()
    started = time.process_time()
    for batch in places:
        found(batch)
    return {
        "permutation_batch_cpu_s": (time.process_time() - started) / NUM_TIMED,
        "permutation_bytes": max(0, now_bytes() - before),
    }


def quarantine(num_bad: int, scratch: Path) -> Found:
    """List so many bad files and write the list, as a driver does when it begins and ends; then a second's more."""
    before = now_bytes()
    found = Quarantine()

    def add(number: int) -> None:
        name = f"train/n{number % NUM_CLASSES:08}/n{number % NUM_CLASSES:08}_{number}.JPEG"
        reason = "Corrupt JPEG data: premature end of data segment"
        found.add(
            QuarantineEntry(
                name, f"s3://pictures/imagenet/{name}", "decode", reason, "dali, opencv, pillow", name, 0
            )
        )

    for number in range(num_bad):
        add(number)
    held = now_bytes() - before
    path = scratch / "quarantine.jsonl"
    started = time.process_time()
    write_quarantine(found.dump(), path)
    written = time.process_time()
    num_bytes = path.stat().st_size
    for number in range(num_bad, num_bad + NUM_FRESH):
        add(number)
    added = time.process_time()
    append_quarantine(found.dump(num_bad), path)
    return {
        "quarantine_file_bytes_per_bad": num_bytes / num_bad,
        "quarantine_memory_bytes_per_bad": held / num_bad,
        "quarantine_write_cpu_s_per_bad": (written - started) / num_bad,
        "quarantine_append_cpu_s_per_bad": (time.process_time() - added) / NUM_FRESH,
    }


def ray_data(num_workers: int, scratch: Path) -> Found:
    """Send tiny batches through so many workers: what is left is what a batch costs the driver and Ray's own processes."""
    import cv2
    import ray
    from lightwell.pipeline.index.build import build_index
    from lightwell.pipeline.plan.plan import Plan
    from lightwell.workers.ray.cluster import Resources
    from lightwell.workers.ray.engine import RayEngine

    photos = scratch / "tiny"
    photos.mkdir(exist_ok=True)
    for number in range(8):
        cv2.imwrite(str(photos / f"{number}.png"), np.full((16, 16, 3), 30 * number, np.uint8))
    build_index(photos, fractions={"train": 1.0}).save(scratch / "tiny.parquet")
    policy = [{"Resize": {"height": 16, "width": 16}}]
    plan = Plan.model_validate(
        {"index": scratch / "tiny.parquet", "preprocess": policy, "batch": {"size": 1}}
    )
    epochs = (NUM_WARM + NUM_STREAMED) // 8

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=300 << 20)
    session = ray._private.worker._global_node.get_session_dir_path()
    try:
        engine = RayEngine(num_workers=num_workers, per_worker=Resources(cpus=1 / num_workers))
        with engine.feed(plan, View(num_epochs=epochs)) as feed, closing(iter(feed)) as batches:
            for _ in range(NUM_WARM):
                next(batches)
            started, cpu, others = time.perf_counter(), time.process_time(), ray_cpu_s(session)
            for _ in range(NUM_STREAMED):
                taken = next(batches)
            assert len(taken) == 1
            assert next(batches, None) is None  # read to its end
            return {
                "driver_cpu_s_per_batch": (time.process_time() - cpu) / NUM_STREAMED,
                "raylet_and_gcs_cpu_s_per_batch": (ray_cpu_s(session) - others) / NUM_STREAMED,
                "wall_s_per_batch": (time.perf_counter() - started) / NUM_STREAMED,
                "moved_bytes_per_batch_beside_pixels": feed.stats().moved_bytes / feed.stats().num_batches
                - 16 * 16 * 3,
            }
    finally:
        ray.shutdown()


def ray_cpu_s(session: str) -> float:
    """Add up the time that Ray's own processes of a session took: raylet and global control service."""
    total = 0.0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if session in line and ("raylet/raylet" in line or "gcs/gcs_server" in line):
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def mapped_of(num_rows: int, scratch: Path) -> Path:
    """Where its rows lie for all processes."""
    return scratch / f".index-{num_rows}.parquet.arrow"


def index_of(num_rows: int, scratch: Path) -> Path:
    """Where the index of a size lies."""
    return scratch / f"index-{num_rows}.parquet"


PARTS: dict[str, Callable[[int, Path], Found]] = {
    part.__name__: part
    for part in (write, load, make_mapped, mapped, fingerprint, schedule, permutation, quarantine, ray_data)
}


def main() -> None:
    """Measure the part that the command line asks for; the last line of standard output is JSON."""
    part, size, scratch = sys.argv[1:]
    logging.basicConfig(level=logging.ERROR)
    sys.stdout.write(json.dumps(PARTS[part](int(size), Path(scratch))) + "\n")


if __name__ == "__main__":
    main()
