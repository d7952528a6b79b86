"""Reads image headers on a Ray cluster: the driver lists a source, and a bounded number of tasks reads the headers.

Ray retries a task whose process or node dies, elsewhere. Tasks return rows, which the driver puts in order, so that no row
is lost or duplicated.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from ...pipeline.errors import RunError, WorkerDiedError
from ...pipeline.index.readers import Chunk, ThreadReaders, default_threads
from ...pipeline.storage.local import is_remote
from ...pipeline.storage.storage import Storage
from ...pipeline.storage.uri_rules import UriRules
from .cluster import Resources, WorkerGroup, check_capacity, connected, list_nodes
from .ray_errors import RETRIES, unwrap_ray_error

T = TypeVar("T")

CHUNKS_PER_TASK = 16
"""Maximum; a task costs the driver about 1 ms, a chunk of local files about 20 ms of a worker's CPU time."""
TASKS_PER_WORKER = 8
"""Minimum number of tasks per worker if tasks have several chunks, so that workers finish together."""
FINISHED_PER_RUNNING = 4
"""Maximum ratio of tasks in progress or waiting for their turn to tasks that run concurrently."""
CAPACITY_CHECK_S = 5.0
"""Interval at which the cluster's capacity is checked."""
NUM_PROBES, NUM_CANDIDATES = 3, 16


class Probe(NamedTuple):
    """A file that the driver can read."""

    uri: str
    num_bytes: int


@dataclass(frozen=True)
class RayReaders:
    """Scans files with tasks on a Ray cluster; see ``pipeline.index.readers``."""

    address: str | None = None
    """``host:port``, ``ray://host:port`` or ``auto``; None starts Ray on this machine."""
    num_workers: int = 0
    """Concurrent tasks; 0 means as many as fit, including ones that fit later."""
    per_worker: Resources = field(default_factory=Resources)
    """Resources of one task; it has two threads per CPU, at least four."""

    def scan(
        self, chunks: Iterable[Chunk[T]], *, num_chunks: int, storage: Storage
    ) -> Generator[T, None, None]:
        """Yield the file information of each chunk, in order.

        Raises:
            PlanError: the cluster can never hold the workers, or the address is invalid.
            RunError: there is no cluster at the address, or a node cannot read the files that the driver can.
            WorkerDiedError: a task's process died repeatedly.
            SourceUnavailableError: a remote source gives no answer.
        """
        if not num_chunks:
            return
        with connected(self.address):
            num_workers = self._capacity()
            check_capacity([WorkerGroup(num_workers, self.per_worker)], list_nodes())
            per_task = max(1, min(CHUNKS_PER_TASK, num_chunks // (TASKS_PER_WORKER * num_workers)))
            with _Tasks(self, storage) as tasks:
                for results in tasks.run(_groups(chunks, per_task)):
                    yield from results

    def _capacity(self) -> int:
        return self.num_workers or max(1, sum(node.max_workers(self.per_worker) for node in list_nodes()))

    def max_tasks(self) -> int:
        """Return the current limit of submitted tasks; without ``num_workers`` twice the capacity, for nodes that join."""
        return self.num_workers or 2 * self._capacity()


class _Tasks:
    """Tasks of one source; a context manager, which cancels them on exit."""

    def __init__(self, readers: RayReaders, storage: Storage) -> None:
        import ray

        self._readers = readers
        self._storage = storage.max_wait_s, storage.rules
        self._num_threads = default_threads(math.ceil(readers.per_worker.cpus))
        self._task: Any = ray.remote(
            num_cpus=readers.per_worker.cpus,
            num_gpus=readers.per_worker.gpus,
            max_retries=RETRIES,
            scheduling_strategy="SPREAD",  # every node has its own connection to the files
        )(scan_group)
        self._running: dict[Any, tuple[int, Sequence[Chunk[Any]]]] = {}

    def __enter__(self) -> _Tasks:
        return self

    def __exit__(self, *exc: object) -> None:
        import ray

        for task in self._running:
            ray.cancel(task)

    def run(self, groups: Iterator[Sequence[Chunk[T]]]) -> Iterator[list[T]]:
        """Submit groups and yield their results, in order."""
        import ray

        done: dict[int, list[T]] = {}
        num_sent = num_yielded = 0
        limit, checked_s = self._readers.max_tasks(), time.monotonic()
        while True:
            if time.monotonic() - checked_s >= CAPACITY_CHECK_S:
                limit, checked_s = self._readers.max_tasks(), time.monotonic()
            while len(self._running) < limit and num_sent - num_yielded < FINISHED_PER_RUNNING * limit:
                group = next(groups, None)
                if group is None:
                    break
                task = self._task.remote(group, _probes(group), self._num_threads, *self._storage)
                self._running[task] = num_sent, group
                num_sent += 1
            if num_yielded in done:
                yield done.pop(num_yielded)
                num_yielded += 1
                continue
            if not self._running:
                return
            ready, _ = ray.wait(list(self._running), num_returns=1, timeout=CAPACITY_CHECK_S)
            for task in ready:
                number, group = self._running[task]
                done[number] = self._fetch(task, group)
                del self._running[task]

    def _fetch(self, task: Any, group: Sequence[Chunk[T]]) -> list[T]:
        import ray

        try:
            found: list[T] = ray.get(task)
        except ray.exceptions.RayTaskError as error:
            raise unwrap_ray_error(error) from error
        except ray.exceptions.RayError as error:
            uris = [uri for chunk in group for uri in chunk.uris]
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
            raise WorkerDiedError(
                f"a worker: expected the headers of {len(uris):,} files from {uris[0]!r} to {uris[-1]!r}, got a process that "
                f"died {RETRIES + 1} times ({lines[0]}); check Ray's logs for the cause: out of memory, or one of these "
                "files crashes its reader and has to be removed"
            ) from error
        return found


def scan_group(
    chunks: Sequence[Chunk[T]],
    probes: Sequence[Probe],
    num_threads: int,
    max_wait_s: float,
    rules: UriRules,
) -> list[T]:
    """Scan some chunks in a Ray task.

    Raises:
        RunError: this node cannot read the files that the driver can.
        SourceUnavailableError: a remote source gives no answer.
    """
    check_visible(probes)
    readers = ThreadReaders(num_threads)
    return list(readers.scan(chunks, num_chunks=len(chunks), storage=_storage(max_wait_s, rules)))


@lru_cache(maxsize=1)
def _storage(max_wait_s: float, rules: UriRules) -> Storage:
    """Return the storage of this process, cached to reuse connections between tasks."""
    return Storage(max_wait_s, rules)


def _groups(chunks: Iterable[Chunk[T]], size: int) -> Iterator[list[Chunk[T]]]:
    waiting = iter(chunks)
    while group := list(islice(waiting, size)):
        yield group


def _probes(group: Sequence[Chunk[Any]]) -> list[Probe]:
    """Return some files of a group that the driver can read; a node that can read none of them has other mounts."""
    uris = (uri for chunk in group for uri in chunk.uris)
    found = []
    for uri in islice((uri for uri in uris if not is_remote(uri)), NUM_CANDIDATES):
        if (size := _size_of(uri)) is not None:
            found.append(Probe(uri, size))
        if len(found) == NUM_PROBES:
            break
    return found


def check_visible(probes: Sequence[Probe]) -> None:
    """Check that this node can read at least one of the driver's files, since single ones may change at any time.

    Raises:
        RunError: it can read none of them.
    """
    sizes = [_size_of(probe.uri) for probe in probes]
    if not probes or any(size == probe.num_bytes for size, probe in zip(sizes, probes, strict=True)):
        return
    got = "no such file" if sizes[0] is None else f"another one, of {sizes[0]:,} bytes"
    raise RunError(
        f"node {os.uname().nodename!r}: expected to read {probes[0].uri!r} ({probes[0].num_bytes:,} bytes), as the driver "
        f"can, got {got}; put it in a folder that all nodes mount at the same path, or into a bucket (s3://...)"
    )


def _size_of(uri: str) -> int | None:
    try:
        return os.stat(uri).st_size  # noqa: PTH116 - as fast as it gets, called for some files of every task
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return None
