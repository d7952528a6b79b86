"""Looks at files on a Ray cluster: the driver lists a source, its tasks read the headers, a bounded number at a time.

A task whose process or node dies is run again by Ray, elsewhere. What it gives back are rows, so that nothing can come
twice: the driver puts them in order.
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
from ...pipeline.storage.storage import Storage
from ...pipeline.storage.store import is_remote
from ...pipeline.storage.uri_rules import UriRules
from .cluster import Resources, WorkerGroup, check_capacity, connected, list_nodes
from .stream import RETRIES, unwrap_ray_error

T = TypeVar("T")

CHUNKS_PER_TASK = 16
"""At most: a task costs the driver about a millisecond, a chunk of local files 20 of a worker's CPU."""
TASKS_PER_WORKER = 8
"""That there have to be at least before chunks share a task, so that workers end together."""
FINISHED_PER_RUNNING = 4
"""Tasks under way or done whose turn has not come, for each that works."""
CAPACITY_CHECK_S = 5.0
"""How often a cluster is asked for room that it did not have before."""
NUM_PROBES, NUM_CANDIDATES = 3, 16


class Probe(NamedTuple):
    """A file that the driver sees."""

    uri: str
    num_bytes: int


@dataclass(frozen=True)
class RayReaders:
    """Workers of a Ray cluster that look at files; see ``pipeline.index.readers``."""

    address: str | None = None
    """``host:port``, ``ray://host:port`` or ``auto``; None starts Ray on this machine."""
    num_workers: int = 0
    """Tasks at a time; 0 takes as many as there is room for, those too that find room later."""
    per_worker: Resources = field(default_factory=Resources)
    """What one task holds; it has two threads for each CPU, four at least."""

    def scan(
        self, chunks: Iterable[Chunk[T]], *, num_chunks: int, storage: Storage
    ) -> Generator[T, None, None]:
        """Yield what was seen of each chunk, in order.

        Raises:
            PlanError: the cluster can never hold the workers, or the address cannot be one.
            RunError: there is no cluster at the address, or a node does not see the files that the driver sees.
            WorkerDiedError: a task's process died again and again.
            SourceUnavailableError: a remote source gives no answer.
        """
        if not num_chunks:
            return
        with connected(self.address):
            initial_workers = self._num_now()
            check_capacity([WorkerGroup(initial_workers, self.per_worker)], list_nodes())
            per_task = max(1, min(CHUNKS_PER_TASK, num_chunks // (TASKS_PER_WORKER * initial_workers)))
            with _Tasks(self, storage) as tasks:
                for seen in tasks.run(_groups(chunks, per_task)):
                    yield from seen

    def _num_now(self) -> int:
        return self.num_workers or max(1, sum(node.max_workers(self.per_worker) for node in list_nodes()))

    def max_tasks(self) -> int:
        """Say how many tasks Ray may have now: where it bounds them itself, so many more that a new node finds some."""
        return self.num_workers or 2 * self._num_now()


class _Tasks:
    """The tasks of one source; a context manager, so that none is left running."""

    def __init__(self, readers: RayReaders, storage: Storage) -> None:
        import ray

        self._readers = readers
        self._storage = storage.max_wait_s, storage.rules
        self._num_threads = default_threads(math.ceil(readers.per_worker.cpus))
        self._task: Any = ray.remote(
            num_cpus=readers.per_worker.cpus,
            num_gpus=readers.per_worker.gpus,
            max_retries=RETRIES,
            scheduling_strategy="SPREAD",  # every node has its own way to the files
        )(scan_group)
        self._running: dict[Any, tuple[int, Sequence[Chunk[Any]]]] = {}

    def __enter__(self) -> _Tasks:
        return self

    def __exit__(self, *exc: object) -> None:
        import ray

        for task in self._running:
            ray.cancel(task)

    def run(self, groups: Iterator[Sequence[Chunk[T]]]) -> Iterator[list[T]]:
        """Send groups out and yield what comes back of each, in order."""
        import ray

        done: dict[int, list[T]] = {}
        num_sent = num_given = 0
        most, asked_s = self._readers.max_tasks(), time.monotonic()
        while True:
            if time.monotonic() - asked_s >= CAPACITY_CHECK_S:
                most, asked_s = self._readers.max_tasks(), time.monotonic()
            while len(self._running) < most and num_sent - num_given < FINISHED_PER_RUNNING * most:
                group = next(groups, None)
                if group is None:
                    break
                sent = self._task.remote(group, _probes(group), self._num_threads, *self._storage)
                self._running[sent] = num_sent, group
                num_sent += 1
            if num_given in done:
                yield done.pop(num_given)
                num_given += 1
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
                f"died over them {RETRIES + 1} times ({lines[0]}); look into Ray's logs for why: memory, or one of these "
                "files that ends its reader and has to be taken away"
            ) from error
        return found


def scan_group(
    chunks: Sequence[Chunk[T]],
    probes: Sequence[Probe],
    num_threads: int,
    max_wait_s: float,
    rules: UriRules,
) -> list[T]:
    """Look at some chunks, in a process of Ray's.

    Raises:
        RunError: this node does not see the files that the driver sees.
        SourceUnavailableError: a remote source gives no answer.
    """
    check_visible(probes)
    readers = ThreadReaders(num_threads)
    return list(readers.scan(chunks, num_chunks=len(chunks), storage=_storage(max_wait_s, rules)))


@lru_cache(maxsize=1)
def _storage(max_wait_s: float, rules: UriRules) -> Storage:
    """Keep connections from one task of this process to the next."""
    return Storage(max_wait_s, rules)


def _groups(chunks: Iterable[Chunk[T]], size: int) -> Iterator[list[Chunk[T]]]:
    waiting = iter(chunks)
    while group := list(islice(waiting, size)):
        yield group


def _probes(group: Sequence[Chunk[Any]]) -> list[Probe]:
    """Find some files of a group that the driver sees: who sees none of them sees other disks."""
    uris = (uri for chunk in group for uri in chunk.uris)
    found = []
    for uri in islice((uri for uri in uris if not is_remote(uri)), NUM_CANDIDATES):
        if (size := _size_of(uri)) is not None:
            found.append(Probe(uri, size))
        if len(found) == NUM_PROBES:
            break
    return found


def check_visible(probes: Sequence[Probe]) -> None:
    """Check that this node sees what the driver sees, or at least one of it: files may go or change at any time.

    Raises:
        RunError: it does not.
    """
    sizes = [_size_of(probe.uri) for probe in probes]
    if not probes or any(size == probe.num_bytes for size, probe in zip(sizes, probes, strict=True)):
        return
    got = "no such file" if sizes[0] is None else f"another one, of {sizes[0]:,} bytes"
    raise RunError(
        f"node {os.uname().nodename!r}: expected to read {probes[0].uri!r} ({probes[0].num_bytes:,} bytes), which the driver "
        f"sees, got {got}; put it on a folder that all nodes mount at the same path, or into a bucket (s3://...)"
    )


def _size_of(uri: str) -> int | None:
    try:
        return os.stat(uri).st_size  # noqa: PTH116 - as fast as it gets, called for some files of every task
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return None
