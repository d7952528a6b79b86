"""Interface for parallel scans of files in chunks, and its implementation with threads."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol, TypeVar

from ..machine import num_cpus
from ..storage.storage import Storage

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MIN_THREADS, MAX_THREADS = 4, 32
PREFETCH_CHUNKS = 4
"""Chunks per thread that are queued or finished."""


class Chunk(Protocol[T_co]):
    """Some files to scan. Can be pickled."""

    @property
    def uris(self) -> Sequence[str]:
        """The URIs of the files."""
        ...

    def scan(self, storage: Storage) -> T_co:
        """Scan the files.

        Raises:
            SourceUnavailableError: their source does not respond.
        """
        ...


class Readers(Protocol):
    """Scans chunks in parallel."""

    def scan(
        self, chunks: Iterable[Chunk[T]], *, num_chunks: int, storage: Storage
    ) -> Generator[T, None, None]:
        """Yield the result of each chunk, in order.

        Args:
            chunks: consumed lazily.
            num_chunks: number of chunks.
            storage: reads the files; another process opens its own with the same settings.

        Raises:
            RunError: the readers cannot access the files.
        """
        ...


def default_threads(num_cpus: int) -> int:
    """Return the default number of reader threads: two per CPU, as they mostly wait for I/O."""
    return min(MAX_THREADS, max(MIN_THREADS, 2 * num_cpus))


class ThreadReaders:
    """Scans chunks with threads of this process; header reads mostly wait for I/O or run C code.

    Args:
        num_threads: 0 selects it by the number of CPUs.
    """

    def __init__(self, num_threads: int = 0) -> None:
        self._num_threads = num_threads or default_threads(num_cpus())

    def scan(
        self, chunks: Iterable[Chunk[T]], *, num_chunks: int, storage: Storage
    ) -> Generator[T, None, None]:
        """Yield the result of each chunk, in order."""
        num_threads = max(1, min(self._num_threads, num_chunks))
        with ThreadPoolExecutor(num_threads, thread_name_prefix="lightwell-index") as pool:
            try:
                yield from _map_in_order(
                    pool, (chunk.scan for chunk in chunks), storage, PREFETCH_CHUNKS * num_threads
                )
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # do not wait for queued chunks, as at Ctrl-C
                raise


def _map_in_order(
    pool: ThreadPoolExecutor, scans: Iterator[Callable[[Storage], T]], storage: Storage, ahead: int
) -> Iterator[T]:
    running: list[Future[T]] = [pool.submit(scan, storage) for scan in islice(scans, ahead)]
    while running:
        yield running.pop(0).result()
        running += [pool.submit(scan, storage) for scan in islice(scans, 1)]
