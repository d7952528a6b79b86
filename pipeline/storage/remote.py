"""Remote files through fsspec (``s3://``, ``gs://``, ``https://``, ``memory://`` ...), with retries and timeouts.

Credentials and endpoints come from fsspec's and the protocol's own configuration, such as ``AWS_ENDPOINT_URL``.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import count
from typing import Any, TypeVar

from ..errors import SourceError, SourceUnavailableError
from ..text import quoted
from ..uris import public_uri, redact_uris
from .local import FileStat, ReadResult, store_root
from .uri_rules import UriRules

T = TypeVar("T")

ATTEMPT_TIMEOUT_S = 10.0
"""Timeout of one request; a connection without a response is dropped and retried."""
INITIAL_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
MIN_BYTES_PER_S = 1_000_000
"""Throughput below which a transfer times out: every timeout grows by one second for this many requested bytes."""
MAX_FILE_BYTES = 1 << 50
"""Larger sizes in listings are rejected as invalid."""
PROBE_TIMEOUT_S = 5.0
LISTING_TIMEOUT_S = 600.0
"""Timeout of a complete listing, which may hold millions of names."""

_NOT_RETRIED = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Errors that concern one file and are not retried; all others are."""


class _NoRetryError(Exception):
    """An error that no retry can resolve."""


class RemoteStore:
    """Store for remote files. One file system per bucket or server, shared by all threads.

    Timeouts apply to file systems that are asynchronous in fsspec (S3, Google, Azure, HTTP); others, such as SFTP, have
    only their own.

    Args:
        max_wait_s: seconds of failing requests after which a source counts as unavailable.
        rules: allowed URIs; any other raises ``ForbiddenURIError``.
    """

    def __init__(self, max_wait_s: float, rules: UriRules | None = None) -> None:
        self._max_wait_s = max_wait_s
        self._rules = rules or UriRules.from_env()
        self._lock = threading.Lock()
        self._filesystems: dict[str, Any] = {}
        self._last_successes: dict[str, tuple[tuple[str, float], ...]] = {}
        """By source: the last two files that were read, and when."""
        self._closed = threading.Event()

    def read(self, uri: str, offset: int, size: int, *, expected: int = 0) -> ReadResult:
        """Read a byte range of a file; see ``Store.read``."""

        def request(filesystem: Any, path: str, limit: Mapping[str, float]) -> ReadResult:
            etag: str | None = None
            if hasattr(filesystem, "cat_with_etag"):
                data, etag = filesystem.cat_with_etag(path, offset, offset + size, **limit)
            else:
                data = filesystem.cat_file(path, start=offset, end=offset + size, **limit)
            if len(data) < expected and filesystem.info(path, **limit)["size"] >= offset + expected:
                raise ConnectionError(f"the response was cut off after {len(data):,} of {expected:,} bytes")
            return ReadResult(data, None, None, etag)

        return self._with_retries(uri, request, size)

    def stat(self, uri: str) -> FileStat:
        """Return size, modification time and ETag of a file."""
        return self._with_retries(
            uri, lambda filesystem, path, limit: file_stat_from_info(filesystem.info(path, **limit)), 0
        )

    def canonical(self, uri: str) -> str:
        """Return a URI in the spelling of its source's listings."""
        filesystem, path = self._open(uri)
        return str(filesystem.unstrip_protocol(path)).rstrip("/")

    def find(self, uri: str) -> dict[str, FileStat]:
        """List all files below a folder by URI, with their stats; empty if there are none."""

        def request(filesystem: Any, path: str, limit: Mapping[str, float]) -> dict[str, FileStat]:
            filesystem.invalidate_cache()
            listed = filesystem.find(path, detail=True, **limit)
            return {
                filesystem.unstrip_protocol(name): file_stat_from_info(info) for name, info in listed.items()
            }

        self.stat(uri)  # fails early where the source is unavailable: the listing has a long timeout
        return self._with_retries(uri, request, 0, attempt_s=LISTING_TIMEOUT_S)

    def close(self) -> None:
        """Cancel waiting retries; connections close with their last reference."""
        self._closed.set()
        with self._lock:
            self._filesystems.clear()

    def _with_retries(
        self,
        uri: str,
        request: Callable[[Any, str, Mapping[str, float]], T],
        size: int,
        *,
        attempt_s: float | None = None,
    ) -> T:
        """Send a request with retries: exponential backoff with full jitter, within a total time.

        Backoff: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 ("full jitter").
        """
        allowance = size / MIN_BYTES_PER_S
        started = time.monotonic()
        deadline = started + self._max_wait_s + allowance
        for attempt in count(1):
            if self._closed.is_set():
                raise self._source_error(uri, "the end of the run", attempt)
            left = deadline - time.monotonic()
            try:
                limit_s = attempt_s or max(0.1, min(ATTEMPT_TIMEOUT_S + allowance, left))
                answer = self._attempt(uri, request, limit_s)
            except SourceError:
                raise
            except _NOT_RETRIED as error:
                message = redact_uris(error.strerror or str(error))
                raise type(error)(error.errno or 0, message, public_uri(uri)) from error
            except _NoRetryError as error:
                raise self._source_error(uri, error.args[0], attempt) from error
            except (
                Exception
            ) as error:  # botocore, aiohttp, fsspec and the other protocols raise their own kinds
                wait = random.uniform(0, min(MAX_BACKOFF_S, INITIAL_BACKOFF_S * 2**attempt))  # noqa: S311
                if time.monotonic() + wait >= deadline or self._closed.wait(wait):
                    raise self._final_error(uri, _describe_error(error), attempt, started) from error
                continue
            self._record_success(uri)
            return answer
        raise AssertionError("count() has no end")

    def _attempt(self, uri: str, request: Callable[[Any, str, Mapping[str, float]], T], limit_s: float) -> T:
        filesystem, path = self._open(uri)
        limit = {"timeout": limit_s} if filesystem.async_impl else {}
        try:
            return request(filesystem, path, limit)
        except Exception as error:
            if "Credentials" in type(error).__name__:
                raise _NoRetryError(_describe_error(error)) from error
            if (forbidden := _forbidden(error)) is not None:
                raise forbidden from error
            raise

    def _open(self, uri: str) -> tuple[Any, str]:
        self._rules.check(uri)
        source = store_root(uri)
        with self._lock:
            if source not in self._filesystems:
                self._filesystems[source] = _filesystem_for(uri, self._rules)
            filesystem = self._filesystems[source]
        return filesystem, filesystem._strip_protocol(uri)

    def _record_success(self, uri: str) -> None:
        source = store_root(uri)
        others = [one for one in self._last_successes.get(source, ()) if one[0] != uri]
        self._last_successes[source] = (*others[-1:], (uri, time.monotonic()))

    def _final_error(self, uri: str, reason: str, attempts: int, started: float) -> Exception:
        """Decide whether one file or its whole source is unavailable.

        The source is available if another file was read since the first attempt, or if one that was read earlier can be
        read again.
        """
        others = [one for one in self._last_successes.get(store_root(uri), ()) if one[0] != uri]
        for other, time_s in () if self._closed.is_set() else others[-1:]:
            if time_s > started:
                return self._file_error(uri, reason, attempts)
            try:
                self._attempt(
                    other,
                    lambda filesystem, path, limit: filesystem.info(path, **limit),
                    min(PROBE_TIMEOUT_S, self._max_wait_s),
                )
            except FileNotFoundError:
                pass  # a response as well
            except Exception:  # noqa: S112 - the error below covers a failed probe
                continue
            return self._file_error(uri, reason, attempts)
        return self._source_error(uri, reason, attempts)

    def _file_error(self, uri: str, reason: str, attempts: int) -> OSError:
        message = f"no valid response in {attempts} attempts within {self._max_wait_s:g} s ({reason})"
        return OSError(0, f"{message}, while its source responds", public_uri(uri))

    def _source_error(self, uri: str, reason: str, attempts: int) -> SourceUnavailableError:
        return SourceUnavailableError(
            f"expected a response from {store_root(public_uri(uri))} within {self._max_wait_s:g} s, got {reason} in "
            f"{attempts} attempts for {public_uri(uri)!r}; check the address, the network and the credentials, then run again"
        )


def _filesystem_for(uri: str, rules: UriRules) -> Any:
    import fsspec

    try:
        if uri.lower().startswith(("http://", "https://")):
            from .http import BoundedHTTPFileSystem

            return BoundedHTTPFileSystem(rules, skip_instance_cache=True)
        filesystem, _ = fsspec.core.url_to_fs(uri, skip_instance_cache=True)
    except ImportError as error:
        extra = " ('s3' is an extra of lightwell)" if uri.startswith(("s3://", "s3a://")) else ""
        raise SourceError(
            f"expected to read {public_uri(uri)!r}, got {redact_uris(str(error))}; install what it names{extra}"
        ) from error
    except ValueError as error:
        raise SourceError(
            f"expected a protocol that fsspec knows, got {public_uri(uri)!r} ({redact_uris(str(error))}); correct the URI"
        ) from error
    return filesystem


def file_stat_from_info(info: Mapping[str, Any]) -> FileStat:
    """Convert an fsspec listing entry; protocols use different keys for time and ETag."""
    etag = next((str(info[name]).strip('"') for name in ("ETag", "etag", "md5Hash") if info.get(name)), None)
    names = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")
    moment = next((info[name] for name in names if info.get(name)), None)
    if isinstance(moment, datetime):
        moment = moment.timestamp()
    mtime_ns = int(moment * 1e9) if isinstance(moment, int | float) else 0
    num_bytes = int(info["size"] or 0)
    if not 0 <= num_bytes < MAX_FILE_BYTES:
        raise PermissionError(13, f"its store reports an impossible size ({quoted(num_bytes)} bytes)")
    return FileStat(num_bytes, mtime_ns, etag)


def _forbidden(error: BaseException) -> PermissionError | None:
    """Find the PermissionError among the causes of an fsspec or aiohttp error."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, PermissionError):
        found = found.__cause__
    return found


def _describe_error(error: BaseException) -> str:
    message = " ".join(redact_uris(str(error)).split()) or (
        " ".join(redact_uris(str(error.__cause__)).split()) if error.__cause__ else ""
    )
    if "Timeout" in type(error).__name__:
        return f"no response ({type(error).__name__}{': ' + message if message else ''})"
    return f"{type(error).__name__}: {message}"[:200]
