"""Who looks at files: the threads of this process, or whatever else takes chunks of the work and gives back what it saw."""

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
"""Portions that wait or lie finished, for each thread."""


class Chunk(Protocol[T_co]):
    """Some files to look at: a value that can be pickled."""

    @property
    def uris(self) -> Sequence[str]:
        """The files."""
        ...

    def scan(self, storage: Storage) -> T_co:
        """Look at them.

        Raises:
            SourceDownError: their source gives no answer.
        """
        ...


class Readers(Protocol):
    """Looks at chunks, several at a time."""

    def scan(
        self, chunks: Iterable[Chunk[T]], *, num_chunks: int, storage: Storage
    ) -> Generator[T, None, None]:
        """Yield what was seen of each chunk, in order.

        Args:
            chunks: made as they are needed.
            num_chunks: how many there are.
            storage: reads them; another process opens one with the same ``max_wait_s``.

        Raises:
            RunError: files cannot be read where they are looked at.
        """
        ...


def default_threads(num_cpus: int) -> int:
    """Choose how many threads read headers, which wait for disks and networks: two for each CPU."""
    return min(MAX_THREADS, max(MIN_THREADS, 2 * num_cpus))


class ThreadReaders:
    """Threads of this process. Reading headers waits for disks and networks, and for C code.

    Args:
        num_threads: 0 chooses by the number of CPUs.
    """

    def __init__(self, num_threads: int = 0) -> None:
        self._num_threads = num_threads or default_threads(num_cpus())

    def scan(
        self, chunks: Iterable[Chunk[T]], *, num_chunks: int, storage: Storage
    ) -> Generator[T, None, None]:
        """Yield what was seen of each chunk, in order."""
        num_threads = max(1, min(self._num_threads, num_chunks))
        with ThreadPoolExecutor(num_threads, thread_name_prefix="lightwell-index") as pool:
            try:
                yield from _map_in_order(
                    pool, (chunk.scan for chunk in chunks), storage, PREFETCH_CHUNKS * num_threads
                )
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for the rest
                raise


def _map_in_order(
    pool: ThreadPoolExecutor, scans: Iterator[Callable[[Storage], T]], storage: Storage, ahead: int
) -> Iterator[T]:
    running: list[Future[T]] = [pool.submit(scan, storage) for scan in islice(scans, ahead)]
    while running:
        yield running.pop(0).result()
        running += [pool.submit(scan, storage) for scan in islice(scans, 1)]
