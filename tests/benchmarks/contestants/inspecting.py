"""Images a second of a dataset's audit without a model: Lightwell, decoding alone, and cleanvision."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from lightwell.models.audits.dataset.checks.exact_duplicates import exact_groups
from lightwell.models.audits.dataset.checks.near_duplicates import near_groups
from lightwell.models.audits.dataset.checks.quality import find_quality
from lightwell.models.audits.dataset.dataset_table import DatasetTable
from lightwell.pipeline.formats.headers import read_header
from lightwell.pipeline.statistics.file_measures import file_measures
from lightwell.pipeline.statistics.image_measures import image_measures

from benchmarks.benchmark import NUM_WORKERS, Work


def ours(work: Work) -> float:
    """Measure all photos and run the checks that cleanvision has."""
    return images_per_second(work, lambda: count_findings(work.photos, measure_all(work.photos)))


def measures(work: Work) -> float:
    """Take all measures of files and images."""
    return images_per_second(work, lambda: measure_all(work.photos))


def decoding(work: Work) -> float:
    """Read and decode the same photos, nothing else."""
    return images_per_second(
        work, lambda: in_threads(lambda path: decode(Path(path).read_bytes()).size, work.photos)
    )


def cleanvision(work: Work) -> float:
    """Run cleanvision's default checks."""
    from cleanvision import Imagelab

    folder = str(Path(work.photos[0]).parent)
    return images_per_second(
        work, lambda: Imagelab(data_path=folder).find_issues(n_jobs=NUM_WORKERS, verbose=False)
    )


def images_per_second(work: Work, run: Callable[[], Any]) -> float:
    """Go over all photos again and again."""
    cv2.setNumThreads(1)
    passes = 0
    started = time.perf_counter()
    while (taken := time.perf_counter() - started) < work.seconds or not passes:
        run()
        passes += 1
    return passes * len(work.photos) / taken


def measure_all(photos: tuple[str, ...]) -> list[dict[str, Any]]:
    """Measure all photos, in threads."""
    return in_threads(measure, photos)


def measure(path: str) -> dict[str, Any]:
    """Measure one photo: its file and its image."""
    header, data = read_header(path), Path(path).read_bytes()
    return {
        "bytes": len(data),
        "width": header.width,
        "height": header.height,
        **file_measures(data, header.format, header.width, header.height),
        **image_measures(decode(data)),
    }


def count_findings(photos: tuple[str, ...], rows: list[dict[str, Any]]) -> list[int]:
    """Run the checks on a table of measures; count what each finds."""
    columns = {
        name: np.array([np.frombuffer(row[name], np.uint8) for row in rows])
        if isinstance(rows[0][name], bytes)
        else np.array([row[name] for row in rows])
        for name in rows[0]
    }
    none = np.full(len(rows), None, object)
    table = DatasetTable(
        keys=np.array(photos, object),
        labels=np.full(len(rows), -1, np.int64),
        class_names=(),
        splits=none,
        problems=none,
        seed=0,
        files=columns,
        images=columns,
    )
    groups = (exact_groups(table), near_groups(table))
    return [*(each.num_concerned for each in find_quality(table)), *(one.count for one in groups)]


def decode(data: bytes) -> Any:
    """Decode to RGB with OpenCV."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def in_threads(function: Callable[[str], Any], photos: tuple[str, ...]) -> list[Any]:
    """Map photos in two threads."""
    with ThreadPoolExecutor(NUM_WORKERS) as pool:
        return list(pool.map(function, photos))
